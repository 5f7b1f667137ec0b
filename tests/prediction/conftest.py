import os
import signal
import threading

import pytest
import stand_in


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model's file that stands for `stand_in.red`."""
    stand_in.use(monkeypatch.setattr)
    return stand_in.model_file(tmp_path)


class Watching(threading.Thread):
    """Does what a test does to the folder, while the command has the main thread; ends that.

    Where `act` is None, the command ends by itself.
    """

    def __init__(self, act):
        super().__init__(daemon=True)
        self.act, self.error = act, None

    def run(self):
        try:
            self.act()
        except BaseException as error:
            self.error = error
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def watch(model, tmp_path):
    """Watches `in`, or a pattern in it, while `act` is done."""
    (tmp_path / "in").mkdir(exist_ok=True)

    def watch(act, *options, pattern=""):
        thread = Watching(act)
        if act is not None:
            thread.start()
        given, output = tmp_path / "in" / pattern, f"--output={tmp_path / 'out'}"
        status = stand_in.predict(model, given, "--watch", output, *stand_in.QUICK, *options)
        if act is not None:
            thread.join()
        if thread.error:
            raise thread.error
        return status

    return watch
