"""The next-word model of Gboard: a CIFG LSTM with tied embeddings.

Hard et al. 2018, "Federated Learning for Mobile Keyboard Prediction",
arXiv:1811.03604: a vocabulary of 10,000 words, embeddings of 96 dimensions that
input and output share, one CIFG layer of 670 units projected to 96, about 1.4
million parameters. A projection that also feeds the next step gives that number;
one that does not would give 2.6 million.
"""

from collections import OrderedDict
from typing import Any

#: Words, the special ones included.
VOCABULARY = 10_000
#: Dimensions of a word's embedding, and of the LSTM's projected output.
EMBEDDING = 96
#: Width of the LSTM's cell state.
UNITS = 670
#: Words of a sentence that the model reads; longer ones are cut, shorter ones padded.
WORDS = 20
#: Ids that are no words: padding, a word outside the vocabulary, begin and end.
PADDING, UNKNOWN, BEGIN, END = range(4)
#: Weights: 960,000 in the embedding, 452,250 in the LSTM.
PARAMETERS = 1_412_250


def model_fn(
    *,
    vocabulary: int = VOCABULARY,
    embedding: int = EMBEDDING,
    units: int = UNITS,
    words: int = WORDS,
    unroll: bool = False,
) -> Any:
    """The network as a tff.learning.models.VariableModel.

    One example is `x`, int32 [words], a sentence that starts with BEGIN and is
    padded with PADDING, and `y`, int32 [words], the word that follows at each
    place: the same sentence one word on. The loss is the cross-entropy averaged
    over all tokens of a batch that are not padding. The accuracy leaves out
    unknown words and the end as well, since a keyboard can offer neither.

    Args:
        vocabulary, embedding, units, words: Sizes, for smaller models.
        unroll: Write the time steps out instead of looping over them: a larger
            graph of the same mathematics.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    from tflite_models.layers.coupled_input_forget import CoupledInputForgetCell
    from tflite_models.layers.masked import MaskedAccuracy, MaskedCrossentropy
    from tflite_models.layers.tied_embedding import TiedEmbedding

    tied = TiedEmbedding(vocabulary, embedding, name="embedding")
    recurrent = tf.keras.layers.RNN(
        CoupledInputForgetCell(units, embedding, name="cell"),
        return_sequences=True,
        unroll=unroll,
        name="lstm",
    )
    sentence = tf.keras.Input((words,), dtype=tf.int32)
    logits = tied(recurrent(tied(sentence)), score=True)
    return tff.learning.models.from_keras_model(
        tf.keras.Model(sentence, logits),
        loss=MaskedCrossentropy(PADDING),
        input_spec=OrderedDict(
            x=tf.TensorSpec([None, words], tf.int32), y=tf.TensorSpec([None, words], tf.int32)
        ),
        metrics=[MaskedAccuracy((PADDING, UNKNOWN, END))],
    )
