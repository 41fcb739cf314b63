from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("inputs", "outputs")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class ExampleSelector(_message.Message):
    __slots__ = ("collection", "criteria", "min_examples", "max_examples")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CRITERIA_FIELD_NUMBER: _ClassVar[int]
    MIN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    criteria: str
    min_examples: int
    max_examples: int
    def __init__(self, collection: _Optional[str] = ..., criteria: _Optional[str] = ..., min_examples: _Optional[int] = ..., max_examples: _Optional[int] = ...) -> None: ...

class OpCount(_message.Message):
    __slots__ = ("name", "version", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    count: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("name", "relative_difference")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    relative_difference: float
    def __init__(self, name: _Optional[str] = ..., relative_difference: _Optional[float] = ...) -> None: ...

class PlanManifest(_message.Message):
    __slots__ = ("format_version", "name", "population", "checkpoint", "examples", "update", "metrics", "signatures", "batch_size", "epochs", "example_selector", "weight_tensor", "max_weight", "ops", "min_runtime_version", "runtimes", "graph_sha256", "variant", "seeded", "predictions")
    class SignaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Signature
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Signature, _Mapping]] = ...) -> None: ...
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_TENSOR_FIELD_NUMBER: _ClassVar[int]
    MAX_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    MIN_RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SHA256_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    SEEDED_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    name: str
    population: str
    checkpoint: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    examples: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    update: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    metrics: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    signatures: _containers.MessageMap[str, Signature]
    batch_size: int
    epochs: int
    example_selector: ExampleSelector
    weight_tensor: str
    max_weight: float
    ops: _containers.RepeatedCompositeFieldContainer[OpCount]
    min_runtime_version: str
    runtimes: _containers.RepeatedCompositeFieldContainer[Runtime]
    graph_sha256: str
    variant: str
    seeded: bool
    predictions: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, format_version: _Optional[int] = ..., name: _Optional[str] = ..., population: _Optional[str] = ..., checkpoint: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., examples: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., update: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., signatures: _Optional[_Mapping[str, Signature]] = ..., batch_size: _Optional[int] = ..., epochs: _Optional[int] = ..., example_selector: _Optional[_Union[ExampleSelector, _Mapping]] = ..., weight_tensor: _Optional[str] = ..., max_weight: _Optional[float] = ..., ops: _Optional[_Iterable[_Union[OpCount, _Mapping]]] = ..., min_runtime_version: _Optional[str] = ..., runtimes: _Optional[_Iterable[_Union[Runtime, _Mapping]]] = ..., graph_sha256: _Optional[str] = ..., variant: _Optional[str] = ..., seeded: bool = ..., predictions: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class GraphFunction(_message.Message):
    __slots__ = ("graph_def", "initialize_op", "inputs", "outputs")
    GRAPH_DEF_FIELD_NUMBER: _ClassVar[int]
    INITIALIZE_OP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    graph_def: bytes
    initialize_op: str
    inputs: _containers.RepeatedCompositeFieldContainer[Binding]
    outputs: _containers.RepeatedCompositeFieldContainer[Binding]
    def __init__(self, graph_def: _Optional[bytes] = ..., initialize_op: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ...) -> None: ...

class Binding(_message.Message):
    __slots__ = ("spec", "tensor")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    spec: TensorSpec
    tensor: str
    def __init__(self, spec: _Optional[_Union[TensorSpec, _Mapping]] = ..., tensor: _Optional[str] = ...) -> None: ...

class ServerPart(_message.Message):
    __slots__ = ("prepare", "report", "update", "state", "sums", "metrics", "model_weights")
    class ModelWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MODEL_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    prepare: GraphFunction
    report: GraphFunction
    update: GraphFunction
    state: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    sums: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    metrics: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    model_weights: _containers.ScalarMap[str, str]
    def __init__(self, prepare: _Optional[_Union[GraphFunction, _Mapping]] = ..., report: _Optional[_Union[GraphFunction, _Mapping]] = ..., update: _Optional[_Union[GraphFunction, _Mapping]] = ..., state: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., sums: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., model_weights: _Optional[_Mapping[str, str]] = ...) -> None: ...
