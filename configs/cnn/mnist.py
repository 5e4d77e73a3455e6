"""The classic small CNN on MNIST (LeCun et al. 1998), through TensorFlow Datasets.

    python -m fmjax.train --config configs/cnn/mnist.py --workdir runs/mnist

Needs a network where TFDS can download, or an `mnist` that is prepared in array_record
format under --config.data.data_dir. Keras' documentation gives about 99 % for 'two';
it has not been run here, where no such network is. ':tiny' needs no network.
"""

from ml_collections import ConfigDict

from configs.cnn import fashion_mnist


def get_config(arg: str = "two") -> ConfigDict:
    c = fashion_mnist.get_config(arg)
    if arg != "tiny":
        c.data = dict(name="tfds", dataset="mnist", data_dir=None)
        c.inputs.mean, c.inputs.std = (0.1307,), (0.3081,)
    return c
