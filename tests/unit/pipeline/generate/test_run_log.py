import logging
import os
import subprocess
import sys

import pytest

from pipeline.generate.run_log import ray_output_in


def test_a_process_sends_all_its_output_to_the_end_of_the_log(tmp_path):
    log = tmp_path / "folder" / "run.log"
    code = (
        "import os, sys; from pipeline.generate.run_log import redirect_output; print('before')\n"
        f"redirect_output({str(log)!r}); print('python'); os.system('echo child'); os.write(2, b'native\\n')"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("before\n", "")
    assert log.read_text().splitlines() == ["python", "child", "native"] * 2


def test_ray_is_kept_off_the_terminal_while_the_block_runs(tmp_path, capsys):
    logger = logging.getLogger("ray")
    before = logger.handlers, logger.propagate
    with ray_output_in(tmp_path / "run.log"):
        logging.getLogger("ray.somewhere").warning("a warning")
        sys.stdout.write("(raylet) a worker died" + os.linesep)
    assert (logger.handlers, logger.propagate) == before
    assert "a warning" in (text := (tmp_path / "run.log").read_text()) and "(raylet)" in text
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_prints_nothing_and_hides_no_error(tmp_path, capsys):
    log = tmp_path / "run.log"
    log.symlink_to("/dev/full")
    with pytest.raises(RuntimeError, match="the real reason"), ray_output_in(log):
        logging.getLogger("ray.somewhere").warning("a warning")
        raise RuntimeError("the real reason")
    assert capsys.readouterr() == ("", "")
