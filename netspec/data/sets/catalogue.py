"""What is known of each named data set: its shape, its files, their mirrors and published checksums."""

from __future__ import annotations

from dataclasses import dataclass, field

from netspec.data.sets.fetch import Remote


@dataclass(frozen=True)
class Known:
    """A named data set."""

    name: str
    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    held_out: int
    """How many of the last training images are the validation split."""
    files: dict[str, Remote] = field(default_factory=dict)
    """Files by role; for idx sets 'train images', 'train labels', 'test images', 'test labels'."""
    label_digests: tuple[str, ...] = ()
    """SHA-256 of the decompressed label files; identifies the set in a folder without its name."""
    classes: tuple[str, ...] = ()


ROLES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


def idx_files(mirrors: tuple[str, ...], *published: tuple[int, str, str]) -> dict[str, Remote]:
    """The four files of an MNIST-like set; `published` are size, MD5 and SHA-256 in the order of ROLES."""
    return {
        role: Remote(f"{stem}.gz", size, md5, sha256, mirrors)
        for (role, stem), (size, md5, sha256) in zip(ROLES.items(), published, strict=True)
    }


MNIST = Known(
    "mnist",
    (1, 28, 28),
    held_out=10_000,
    files=idx_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        (
            9912422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            28881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            1648877,
            "9fb629c4189551a2d022fa330f9573f3",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            4542,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    label_digests=(
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    classes=tuple("0123456789"),
)

FASHION = Known(
    "fashion-mnist",
    (1, 28, 28),
    held_out=10_000,
    files=idx_files(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        (
            26421880,
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        (
            29515,
            "25c81989df183df01b3e8a0aad5dffbe",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        (
            4422102,
            "bef4ecab320f06d8554ea6380940ec79",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        (
            5148,
            "bb300cfdad3c16e7a12a480ee83cd310",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    label_digests=(
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    classes=(
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
)

CIFAR10 = Known(
    "cifar10",
    (3, 32, 32),
    held_out=10_000,
    files={
        "archive": Remote(
            "cifar-10-binary.tar.gz",
            0,
            "c32a1d4ab5d03f1284b67883e8d87530",
            mirrors=("https://www.cs.toronto.edu/~kriz",),
        )
    },
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

DIGITS = Known("digits", (1, 8, 8), held_out=290, classes=tuple("0123456789"))

KNOWN = {known.name: known for known in (MNIST, FASHION, CIFAR10, DIGITS)}
