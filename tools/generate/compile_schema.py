"""Compile `proto/netspec.proto` into the descriptor set and the manual that `netspec.schema` loads.

    python -m tools.generate.compile_schema            writes netspec.desc and manual.json in netspec/schema
    python -m tools.generate.compile_schema --check    writes nothing; exits 1 when the two are stale

Generated `_pb2.py` modules are not shipped: code made by one major version of protobuf only runs on that
version and the next.  A serialised FileDescriptorSet loads on every version.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROTO = ROOT / "proto" / "netspec.proto"
DESCRIPTORS = ROOT / "netspec" / "schema" / "netspec.desc"
MANUAL = ROOT / "netspec" / "schema" / "manual.json"

# Field numbers inside descriptor.proto, which the paths of SourceCodeInfo are made of.
FILE_MESSAGE, FILE_ENUM = 4, 5
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, ENUM_VALUE = 2, 3, 4, 2


def compile_proto(proto: Path) -> Any:
    """The FileDescriptorProto of `proto`, with the comments (source info) still in it."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.desc"
        status = protoc.main(
            [
                "protoc",
                f"-I{proto.parent}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                proto.name,
            ]
        )
        if status != 0:
            sys.exit(f"{proto}: protoc refused it")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return files.file[0]


def manual_of(file: Any) -> dict[str, str]:
    """`{"LayerParameter": ..., "LayerParameter.bottom": ..., "PoolingParameter.PoolMethod.MAX": ...}`."""
    texts: dict[str, str] = {}
    for location in file.source_code_info.location:
        comment = location.leading_comments or location.trailing_comments
        name = _name_at(file, list(location.path)) if comment else None
        if name:
            texts[name] = " ".join(comment.split())
    return dict(sorted(texts.items()))


def _name_at(file: Any, path: list[int]) -> str | None:
    """The dotted name of the message, field, enum or value that a source path leads to."""
    if len(path) < 2 or len(path) % 2 or path[0] not in (FILE_MESSAGE, FILE_ENUM):
        return None
    here = (file.message_type if path[0] == FILE_MESSAGE else file.enum_type)[path[1]]
    names, is_enum = [here.name], path[0] == FILE_ENUM
    for kind, index in zip(path[2::2], path[3::2], strict=True):
        if is_enum and kind == ENUM_VALUE:
            here = here.value[index]
        elif kind == MESSAGE_FIELD:
            here = here.field[index]
        elif kind == MESSAGE_NESTED:
            here = here.nested_type[index]
        elif kind == MESSAGE_ENUM:
            here, is_enum = here.enum_type[index], True
        else:
            return None
        names.append(here.name)
    return ".".join(names)


def outputs() -> dict[Path, bytes]:
    """What the generated files should hold."""
    from google.protobuf import descriptor_pb2

    file = compile_proto(PROTO)
    manual = json.dumps(manual_of(file), indent=0, ensure_ascii=False) + "\n"
    file.ClearField("source_code_info")
    descriptors = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)
    return {DESCRIPTORS: descriptors, MANUAL: manual.encode()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 when the generated files are stale")
    arguments = parser.parse_args()
    for path, content in outputs().items():
        if path.exists() and path.read_bytes() == content:
            continue
        if arguments.check:
            sys.exit(
                f"{path.relative_to(ROOT)} is stale: run python -m tools.generate.compile_schema and commit the result"
            )
        path.write_bytes(content)
        print(f"wrote {path.relative_to(ROOT)} ({len(content)} bytes)")


if __name__ == "__main__":
    main()
