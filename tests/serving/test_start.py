"""The command line, the token, what is said at the start, and what ends it there."""

import json
import socket
import subprocess
import sys

import pytest
from other_processes import REPOSITORY
from stand_in_model import StandIn, ask, png, served, service_of

from stlm_jax.commands import serve
from stlm_jax.runtime.errors import UserError
from stlm_jax.serving.options import Options, models_of, token_of
from stlm_jax.serving.server import run
from stlm_jax.serving.service import Service

FREE = ("/", "/page.css", "/page.js", "/healthz", "/readyz")
GUARDED = ("/v1/models", "/metrics", "/openapi.json", "/anything", "//", "/page.js/", "/healthz/x")


def test_models_by_name():
    assert models_of(["runs/a"]) == {"default": "runs/a"}
    found = models_of(["disc=runs/a", "ring=r=1/b.onnx", "./lr=1/c"])
    assert list(found.items()) == [
        ("disc", "runs/a"), ("ring", "r=1/b.onnx"), ("default", "./lr=1/c"),
    ]  # fmt: skip
    for wrong, line in ((["a", "b"], "a name of its own"), (["x=a", "x=b"], "x=b"), (["x="], "x=")):
        with pytest.raises(UserError, match=line):
            models_of(wrong)


@pytest.mark.parametrize(
    "name, value",
    [("port", 70000), ("max_batch", 0), ("max_batch", 9), ("queue", 0), ("timeout_s", float("nan")),
     ("timeout_s", 0), ("max_upload_mb", -1), ("max_pixels", 0), ("max_pixels", 10**9),
     ("max_wait_ms", -1)],
)  # fmt: skip
def test_options_out_of_range(name, value):
    with pytest.raises(UserError, match=f"--{name}={value}: must be"):
        Options({}, **{name: value})


def test_the_token(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("STLM_TOKEN", raising=False)
    assert token_of(Options({})) is None
    monkeypatch.setenv("STLM_TOKEN", " abc ")
    assert token_of(Options({})) == "abc"
    file = tmp_path / "token"
    file.write_text("def\n")
    file.chmod(0o600)
    assert token_of(Options({}, token_file=str(file))) == "def" and not capsys.readouterr().err
    file.chmod(0o644)
    token_of(Options({}, token_file=str(file)))
    assert "warning" in capsys.readouterr().err
    for text in ("", "a b", "é"):  # an empty one must not open the server
        monkeypatch.setenv("STLM_TOKEN", text)
        with pytest.raises(UserError, match="STLM_TOKEN: a token is one word"):
            token_of(Options({}))
    with pytest.raises(UserError, match="No such file"):
        token_of(Options({}, token_file=str(tmp_path / "absent")))


def test_who_bears_no_token_is_told_so():
    with served(service_of(StandIn()), token="s3cret") as port:
        for path in FREE:
            assert ask(port, path)[0] == 200
        wrong = (
            "",
            "s3cret",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3cret2",
            "Basic s3cret",
        )
        for header in wrong:
            status, headers, body = ask(port, body=png(1), Authorization=header)
            assert status == 401 and headers["WWW-Authenticate"] == "Bearer"
            assert "token" in json.loads(body)["error"] and b"s3cret" not in body
        for path in GUARDED:
            assert ask(port, path)[0] == 401
        for header in ("Bearer s3cret", "bearer s3cret"):
            assert ask(port, body=png(1), Authorization=header)[0] == 200
        schema = json.loads(ask(port, "/openapi.json", Authorization="Bearer s3cret")[2])
        assert schema["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
        assert "security" not in schema["paths"]["/healthz"]["get"]
        text = ask(port, "/metrics", Authorization="Bearer s3cret")[2].decode()
        assert 'endpoint="other",status="401"' in text and "anything" not in text


def test_every_answer_has_the_headers_that_keep_it_in():
    with served(service_of(StandIn())) as port:
        for path in (*FREE, *GUARDED):
            headers = ask(port, path)[1]
            assert headers["X-Content-Type-Options"] == "nosniff"
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'") and "unsafe" not in policy
            assert "Access-Control-Allow-Origin" not in headers


def start(argv, capsys):
    status = serve.main(["serve", *argv])
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    return status, said.err.splitlines()


def test_what_ends_it_at_the_start(tmp_path, capsys):
    status, lines = start([str(tmp_path / "absent"), "--port=0"], capsys)
    assert status == 2 and "absent: no such checkpoint" in lines[-1]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        status, lines = start(["x", f"--port={taken}"], capsys)
    assert status == 2 and lines == [
        f"error: --host=127.0.0.1 --port={taken}: cannot listen there (Address already in use); "
        "give another"
    ]
    status, lines = start(["x", "--host=no.such.host.invalid"], capsys)
    assert status == 2 and len(lines) == 1 and "--host" in lines[0]
    status, lines = start(["x", "--queue=0"], capsys)
    assert status == 2 and lines == ["error: --queue=0: must be 1 to 100000"]


def test_other_hosts_are_warned_of(capsys):
    def fails(path):
        raise UserError(f"{path}: stop here")

    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)):
        with pytest.raises(UserError, match="m: stop here"):
            run(Options({"default": "m"}, host=host, port=0), fails)
        said = capsys.readouterr().err
        assert ("warning: --host=0.0.0.0: other machines reach this server" in said) == warned


def test_all_sizes_are_compiled_before_it_is_ready():
    for most, expected in ((8, [1, 2, 4, 8]), (1, [1]), (5, [1, 2, 4, 8]), (4, [1, 2, 4])):
        model = StandIn()
        options = Options({"default": "x"}, max_batch=most)
        service = Service(options, lambda path, model=model: model)
        service.start()
        while not service.ready:
            pass
        assert model.calls == expected
        assert service.stop()


def test_a_model_that_is_not_finite_never_becomes_ready():
    class NotFinite(StandIn):
        def views(self, views):
            for maps in super().views(views):
                yield maps._replace(score=float("nan"))

    with pytest.raises(UserError, match="default: a grey image.*not finite"):
        run(Options({"default": "x"}, port=0), lambda path: NotFinite())


def test_help_is_shown_before_anything_heavy_is_imported():
    program = """
import sys
from stlm_jax.commands.serve import main
try:
    main(["serve", "--help"])
finally:
    print(sorted({"jax", "fastapi", "numpy", "uvicorn"} & set(sys.modules)))
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[]"
    assert "--max_upload_mb" in process.stdout and "curl" in process.stdout
