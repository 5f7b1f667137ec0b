"""What `conversion.from_torch` and `conversion.to_torch` refuse, each with one line."""

import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import save_file

from conversion import from_torch, to_torch
from stlm_jax.weights.layouts import split

torch = pytest.importorskip("torch")


class Code:
    """Touches a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


@pytest.fixture
def refused(tmp_path, one_line_of_error):
    """Runs from_torch on a file, expects one line of error, and that nothing was written."""

    def run(source, *options):
        output = tmp_path / "output.safetensors"
        status = from_torch.main([str(source), str(output), *options])
        line = one_line_of_error(status)
        assert not output.exists()
        return line

    return run


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_pickle_never_runs(tmp_path, refused, zipped, wrapped, tiny_sam):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    evil = Code(marker)
    content = {"state_dict": tiny_sam, "args": evil} if wrapped else {**tiny_sam, "x": evil}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert re.search(r"evil\.pt: .*Python objects.*never executed", refused(path))
    assert not marker.exists()
    torch.load(path, weights_only=False)  # that it would have run
    assert marker.exists()


def test_a_bare_pickle_never_runs(tmp_path, refused):
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Code(marker), protocol=2))
    assert "evil.pth: " in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, refused, tiny_sam, kind, share):
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file(tiny_sam, path)
    else:
        torch.save(tiny_sam, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert re.search(r"cut\.\w+: (truncated|damaged)", refused(path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(3), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"epoch": 3}, "epoch is a int, not a tensor"),
        ({"model": {"x": "text"}}, "x is a str, not a tensor"),
        ({"fc.weight": torch.ones(2)}, r"no known layout \(its 1 tensors: fc\.weight"),
        ({"a": torch.ones(2).to_sparse()}, "a is not a plain tensor"),
    ],
)
def test_something_else_is_named(tmp_path, refused, content, expected):
    torch.save(content, tmp_path / "else.pt")
    assert re.search(rf"else\.pt: .*{expected}", refused(tmp_path / "else.pt"))


def test_files_that_are_no_checkpoint(tmp_path, refused):
    (tmp_path / "text.pt").write_text("hello\nworld")
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    for name in ("text.pt", "arrays.npz"):
        assert f"{name}: truncated, or not a torch checkpoint" in refused(tmp_path / name)
    assert "absent.pt: there is no such weights file" in refused(tmp_path / "absent.pt")
    assert "absent.safetensors: there is no" in refused(tmp_path / "absent.safetensors")
    assert f"{tmp_path}: " in refused(tmp_path)


def test_all_differences_are_listed_at_once(tmp_path, refused, tiny_sam):
    changed = dict(tiny_sam)
    for name in ("image_encoder.pos_embed", "mask_decoder.iou_token.weight"):
        del changed[name]
    changed["image_encoder.extra.weight"] = torch.ones(2)
    changed["mask_decoder.other"] = torch.ones(2)
    changed["image_encoder.neck.0.weight"] = torch.ones(32, 31, 1, 1)
    changed["prompt_encoder.not_a_point_embed.weight"] = torch.ones(1, 7)  # known, but unused
    torch.save(changed, tmp_path / "changed.pt")
    line = refused(tmp_path / "changed.pt")
    assert line.startswith(f"error: {tmp_path / 'changed.pt'}: the weights are of another model; ")
    assert "missing: image_encoder.pos_embed, mask_decoder.iou_token.weight; " in line
    assert "unexpected: image_encoder.extra.weight, mask_decoder.other; " in line
    misshapen = line.split("misshapen: ")[1]
    assert "image_encoder.neck.0.weight (32, 31, 1, 1), not (32, 32, 1, 1)" in misshapen
    assert "prompt_encoder.not_a_point_embed.weight (1, 7), not (1, 32)" in misshapen
    assert line.count(", not (") == 2


def test_unused_tensors_may_be_missing(tmp_path, tiny_sam):
    used = {k: v for k, v in tiny_sam.items() if "point_embed" not in k and "iou_pred" not in k}
    assert len(used) < len(tiny_sam)
    torch.save(used, tmp_path / "used.pt")
    assert from_torch.main([str(tmp_path / name) for name in ("used.pt", "a.safetensors")]) == 0


@pytest.mark.parametrize("layout", ["sam_vit_b", "mobile_sam", "sam_vit_h"])
def test_a_wrong_layout_is_refused_with_what_the_file_is(tmp_path, refused, tiny_stlm, layout):
    torch.save(tiny_stlm, tmp_path / "stlm.pt")
    line = refused(tmp_path / "stlm.pt", f"--layout={layout}")
    assert f"stlm.pt: not {layout}, it looks like stlm" in line


def test_a_wrong_layout_of_published_files(golden, tmp_path, refused):
    tensors = golden.state_dict(golden.load_manifest("mobile_sam"))
    save_file(
        {name: torch.from_numpy(x) for name, x in tensors.items()}, tmp_path / "m.safetensors"
    )
    for layout in ("sam_vit_b", "stlm"):
        line = refused(tmp_path / "m.safetensors", f"--layout={layout}")
        assert f"not {layout}, it looks like mobile_sam; use --layout=mobile_sam" in line


def test_halves_of_an_stlm(tmp_path, refused, tiny_stlm, tiny_sam):
    first, second, sam = (tmp_path / name for name in ("first.pt", "second.pt", "sam.pt"))
    two_stream, segmentation = split(tiny_stlm)
    for path, tensors in ((first, two_stream), (second, segmentation), (sam, tiny_sam)):
        torch.save(tensors, path)
    assert "first.pt: stlm_twostream, one half of a published STLM" in refused(first)
    assert "second.pt: stlm_segmentation, one half" in refused(second)
    assert "sam.pt: looks like vit_tiny, not stlm_segm" in refused(first, f"--segmentation={sam}")
    assert "sam.pt: looks like vit_tiny, which takes" in refused(sam, f"--segmentation={second}")
    assert "second.pt: looks like stlm_segm" in refused(second, f"--segmentation={first}")
    assert "gone.pt: there is no such" in refused(first, f"--segmentation={tmp_path / 'gone.pt'}")


def test_an_error_in_the_segmentation_names_its_tensor(tmp_path, refused, tiny_stlm):
    two_stream, segmentation = split(tiny_stlm)
    segmentation["res.9.weight"] = segmentation.pop("head.4.weight")
    torch.save(two_stream, tmp_path / "1.pt")
    torch.save(segmentation, tmp_path / "2.pt")
    line = refused(tmp_path / "1.pt", f"--segmentation={tmp_path / '2.pt'}")
    assert "missing: segmentation.head.4.weight; unexpected: segmentation.res.9.weight" in line


def test_a_source_is_never_overwritten(tmp_path, one_line_of_error, tiny_sam):
    path = tmp_path / "sam.safetensors"
    save_file(tiny_sam, path)
    before = path.read_bytes()
    link = tmp_path / "link.safetensors"
    os.symlink(path, link)
    for command in (from_torch, to_torch):
        assert "would overwrite" in one_line_of_error(command.main([str(path), str(link)]))
    assert path.read_bytes() == before


def test_a_folder_is_no_output(tmp_path, one_line_of_error, tiny_sam):
    torch.save(tiny_sam, tmp_path / "sam.pt")
    line = one_line_of_error(from_torch.main([str(tmp_path / "sam.pt"), str(tmp_path)]))
    assert f"{tmp_path}: is a folder" in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses ulimit")
@pytest.mark.parametrize("module", ["from_torch", "to_torch"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_full_disk_leaves_nothing(tmp_path, tiny_stlm, module, suffix):
    source, output = tmp_path / "stlm.pt", tmp_path / "out" / f"out{suffix}"
    torch.save(tiny_stlm, source)
    command = f"ulimit -f 100; {sys.executable} -m conversion.{module} {source} {output}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    advice = "free some space and run the same command again"
    assert finished.stderr.splitlines()[-1] == f"error: {output}: File too large: {advice}"
    assert "Traceback" not in finished.stderr
    assert not list(output.parent.iterdir())


def test_a_converted_file_is_not_converted_again(tmp_path, refused, tiny_sam, capsys):
    torch.save(tiny_sam, tmp_path / "sam.pt")
    assert from_torch.main([str(tmp_path / name) for name in ("sam.pt", "ours.safetensors")]) == 0
    capsys.readouterr()
    assert "already a weights file" in refused(tmp_path / "ours.safetensors")


def test_to_torch_refuses(tmp_path, one_line_of_error, tiny_sam, tiny_stlm):
    torch.save(tiny_sam, tmp_path / "sam.pt")
    torch.save(tiny_stlm, tmp_path / "stlm.pt")

    def refused(*arguments):
        return one_line_of_error(to_torch.main([str(tmp_path / x) for x in arguments]))

    def with_pair(source, first, second):
        arguments = [str(tmp_path / source), str(tmp_path / first)]
        return one_line_of_error(to_torch.main([*arguments, f"--segmentation={tmp_path / second}"]))

    assert "out.onnx: the name must end with .pt, .pth, .safe" in refused("sam.pt", "out.onnx")
    assert "gone: no such checkpoint" in refused("gone", "out.pt")
    assert "sam.pt: holds a SAM" in with_pair("sam.pt", "out.pt", "out2.pt")
    assert "out.pt: would overwrite" in with_pair("stlm.pt", "out.pt", "out.pt")
    assert not list(tmp_path.glob("out*"))


def test_the_command_prints_one_line_and_no_traceback(tmp_path):
    path = tmp_path / "text.pt"
    path.write_text("hello")
    for module in ("from_torch", "to_torch"):
        command = [sys.executable, "-m", f"conversion.{module}", path, tmp_path / "out.pt"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 2 and not finished.stdout
        assert finished.stderr.startswith(f"error: {path}: truncated, or not a torch checkpoint")
        assert finished.stderr.count("\n") == 1
