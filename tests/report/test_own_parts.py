"""The paper's figures stand below results on published data sets, never below a user's own."""

import pytest
from small_results import category, run

from stlm_jax.report import write_report
from stlm_jax.report.tables import PAPER, paper_line
from stlm_jax.report.write import write_results

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.mark.parametrize(("source", "there"), [("folder", 0), ("tfds", 0), ("mvtec_ad", 1)])
def test_the_paper_s_figures(tmp_path, capsys, source, there):
    result = run(category())
    result.config.data.source = source
    write_results(result, tmp_path)
    said = "98.26"
    assert said in PAPER and bool(paper_line(source)) == bool(there)
    assert capsys.readouterr().out.count(said) == there
    assert (tmp_path / "results/table.md").read_text().count(said) == there
    page = write_report(tmp_path / "results/report.html", result).read_text()
    assert page.count(said) == there and page.count('<aside class="paper">') == there
    assert "Cost: " in (tmp_path / "results/table.md").read_text()
