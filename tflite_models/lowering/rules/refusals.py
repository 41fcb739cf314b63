"""Operations that no rule can write with builtins, and what an author can do instead."""

from tflite_models.lowering.rules.table import refuse

refuse(
    "RandomUniformInt",
    "TruncatedNormal",
    "StatelessRandomUniformInt",
    "StatelessRandomUniformIntV2",
    "StatelessTruncatedNormal",
    "StatelessTruncatedNormalV2",
    "ParameterizedTruncatedNormal",
    "RandomGammaGrad",
    "StatelessRandomGammaV2",
    "RandomPoissonV2",
    "StatelessMultinomial",
    "Multinomial",
    "RandomShuffle",
    "StatefulUniform",
    "StatefulStandardNormalV2",
    advice="nearest supported: Dropout and GaussianNoise, which draw uniform and normal numbers",
)
refuse(
    "While",
    "StatelessWhile",
    advice="its loop's length depends on the data; nearest supported: a loop of fixed length, "
    "with tf.where for the steps that do not count",
)
refuse(
    "LookupTableFindV2",
    "StringToHashBucketFast",
    "StringSplitV2",
    "AsString",
    "DecodeRaw",
    "StringToNumber",
    advice="strings are not supported: give the model numbers, looked up in the app",
)
refuse(
    "Conv3D",
    "Conv3DBackpropFilterV2",
    "Conv3DBackpropInputV2",
    "MaxPool3D",
    "MaxPool3DGrad",
    "AvgPool3D",
    "AvgPool3DGrad",
    advice="nearest supported: Conv2D and the 2D pooling layers over the last two dimensions, "
    "with the first one among the channels",
)
refuse(
    "CudnnRNN",
    "CudnnRNNV3",
    "CTCLoss",
    "CTCLossV2",
    advice="nearest supported: LSTM, GRU and SimpleRNN with a sparse categorical cross-entropy",
)
refuse(
    "RaggedTensorToTensor",
    "RaggedGather",
    "RaggedRange",
    "SparseTensorDenseMatMul",
    "SparseToDense",
    "SparseReshape",
    "SparseSegmentMean",
    "SparseSegmentSum",
    advice="nearest supported: dense tensors of a fixed length, padded, with a mask",
)
refuse(
    "Where",
    "Unique",
    "UniqueWithCounts",
    "DynamicPartition",
    "DynamicStitch",
    "ListDiff",
    advice="the shape of its result depends on the data; nearest supported: tf.where with three "
    "arguments, which selects and keeps the shape",
)
refuse(
    "Cholesky",
    "Svd",
    "Qr",
    "Eigh",
    "SelfAdjointEigV2",
    "MatrixInverse",
    "MatrixDeterminant",
    "LogMatrixDeterminant",
    "MatrixSolve",
    "MatrixTriangularSolve",
    "FFT",
    "IFFT",
    "RFFT",
    "IRFFT",
    "RFFT2D",
    advice="nearest supported: matrix products; compute decompositions and transforms in the app",
)
