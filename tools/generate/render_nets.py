"""Write the rendering models in nets/ from their template, nets/rendering.prototmp.

python -m tools.generate.render_nets                        every net of the template
python -m tools.generate.render_nets drmm5_mnist OUT 16 32 32 64 10    one net with other widths, into the file OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from netspec import schema

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = ROOT / "nets" / "rendering.prototmp"
NETS = ("rfm_mnist", "drfm2_mnist", "drmm2_mnist", "drmm5_mnist", "drmm5_divnorm_mnist", "drmm9_cifar10")


def rendered(name: str, **values: object) -> str:
    """The text of one net; values are those that the head of the template lists."""
    return schema.render(TEMPLATE, {"name": name, **values})


def main(arguments: list[str]) -> None:
    if arguments:
        name, out, *widths = arguments
        text = rendered(name, widths=[int(width) for width in widths]) if widths else rendered(name)
        Path(out).write_text(text)
        return
    for name in NETS:
        path = ROOT / "nets" / f"{name}.prototxt"
        path.write_text(rendered(name))
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
