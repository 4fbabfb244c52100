# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100 and LeNet-5 for 28x28 digits.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition":
section III.C (the network of 300 and 100 units) and II (LeNet-5), the latter with the widths of
Caffe's example and without a nonlinearity between convolution and pooling, which is the form that
papers on compression measure.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet_300_100() -> nn.Sequential:
    """784-300-100-10 with ReLU, 266,610 parameters; layers ip1, ip2, ip3."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            flatten=nn.Flatten(),
            ip1=nn.Linear(784, 300),
            relu1=nn.ReLU(),
            ip2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            ip3=nn.Linear(100, 10),
        )
    )


def lenet_5_caffe(widths: tuple[int, int, int] = (20, 50, 500)) -> nn.Sequential:
    """Two 5x5 convolutions and two dense layers: conv1, conv2, ip1, ip2.

    Args:
        widths: outputs of conv1, conv2 and ip1; the standard ones give 431,080 parameters.
    """
    first, second, hidden = widths
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(1, first, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            ip1=nn.Linear(16 * second, hidden),
            relu1=nn.ReLU(),
            ip2=nn.Linear(hidden, 10),
        )
    )
