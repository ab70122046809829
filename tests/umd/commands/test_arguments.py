"""What the parser reads in the place of what was typed."""

from __future__ import annotations

from umd.commands.arguments import nulls_as_config


def test_null_means_null_however_deep() -> None:
    given = ["--model.encoder.text_weights", "null", "--data.cache=null", "--model.init_from", "x.ckpt"]
    config = '--config={"model": {"init_args": {"encoder": {"text_weights": null}}}}'
    assert nulls_as_config(given) == [config, "--data.cache=null", "--model.init_from", "x.ckpt"]
