"""What is read out of a sentence, and what is not."""

import pytest

from umd.scoring.yes_no import read_yes_no


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes", "yes"),
        ("No.", "no"),
        ("YES!", "yes"),
        ("\uff39\uff45\uff53", "yes"),  # full width
        ("\ufeffno\u00a0", "no"),
        ("Yes, there is a fracture.", "yes"),
        ("No there is not", "no"),
        ("Yes. No pleural effusion is seen.", "yes"),
        ("No; the heart is normal.", "no"),
        ("The answer is yes.", "yes"),
        ("Answer: no", "no"),
        ("**Yes**", "yes"),
        ("I would say no, since the lungs are clear.", "no"),
        ("The image shows a fracture, so yes", "yes"),
        ("", None),
        ("   ", None),
        ("yes/no", None),
        ("No, the answer is yes", None),
        ("There is no fracture.", None),
        ("There is a fracture.", None),
        ("The heart is not enlarged", None),
        ("yesterday", None),
        ("nodule", None),
        ("none", None),
        ("It is unknown", None),
        ("left lung", None),
    ],
)
def test_only_a_yes_or_no_that_answers_is_read(text: str, said: str | None) -> None:
    assert read_yes_no(text) == said
