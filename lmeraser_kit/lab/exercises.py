"""Exercises of the lessons: a check says what is wrong and what to try, and lets the notebook go on.

A lesson calls `check("2.1", answer)`, which asks `exercise_1` of `lesson_2`. With the environment variable
LMERASER_STRICT=1 a wrong answer raises, for an autograder. Solutions are in notebooks/lessons/solutions.
"""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from importlib import import_module

STRICT = "LMERASER_STRICT"
MISSING = "not answered yet: write your answer in the cell above, and run both cells."


class UnusableAnswerError(Exception):
    """A student's function raised, or returned nothing; the text says so to the student."""


def usable(function: Callable) -> Callable:
    """The function, which raises UnusableAnswerError where it would raise anything else or return None."""

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        try:
            found = function(*arguments)
        except Exception as error:  # a student's function may do anything
            lines = [frame.line for frame in traceback.extract_tb(error.__traceback__)[1:2] if frame.line]
            where = f", in the line: {lines[0]}" if lines else ""
            raise UnusableAnswerError(f"your function raised {type(error).__name__}: {error}{where}") from error
        if found is None:
            raise UnusableAnswerError("your function returns nothing yet: end it with a return.")
        return found

    return call


def check(exercise: str, *answers: object) -> None:
    """Print whether an answer is right; if it is not, what is wrong with it.

    Args:
        exercise: Lesson and number, such as "2.1".
        answers: What the exercise asks for, a number, an array, or a function, and then what its check needs. None
            and `...` are no answer yet.

    Raises:
        ValueError: If there is no such exercise.
        AssertionError: If LMERASER_STRICT is set, and the answer is wrong or missing.
    """
    lesson, _, number = exercise.partition(".")
    try:
        find_fault = getattr(import_module(f"lmeraser_kit.lab.lesson_{lesson}"), f"exercise_{number}")
    except (ImportError, AttributeError):
        raise ValueError(f"there is no exercise {exercise!r}; one such as '2.1' was expected") from None
    if not answers or any(answer is None or answer is ... for answer in answers):
        fault = MISSING
    else:
        answer, *others = answers
        try:
            fault = find_fault(usable(answer) if callable(answer) else answer, *others)
        except UnusableAnswerError as error:
            fault = str(error)
        except Exception as error:  # what it returns may be anything
            fault = (
                f"your answer is not of the kind that was asked for; its check raised {type(error).__name__}: {error}"
            )
    print(f"Exercise {exercise}: {fault or 'right.'}")
    if fault and os.environ.get(STRICT):
        raise AssertionError(f"Exercise {exercise}: {fault}")


def compare(
    guess: float | str | None, answer: float | str, what: str, between: tuple[float, float] | None = None
) -> None:
    """Print what was guessed beside what it is, and whether it is what was asked for. A number has three digits.

    Args:
        guess: What the reader wrote down; None if nothing.
        answer: What was computed.
        what: What was asked for, with its unit, such as "points that change side".
        between: The least and the largest number that the question allows.
    """
    is_number = isinstance(answer, (int, float)) or hasattr(answer, "dtype")
    answered = f"{float(answer):.3g}" if is_number else str(answer)
    guessed = "You made no guess" if guess is None or guess is ... else f"You guessed {guess}"
    if is_number and guess is not None and guess is not ...:
        if not isinstance(guess, (int, float)) or isinstance(guess, bool):
            guessed += ", which is no number"
        elif between and not between[0] <= guess <= between[1]:
            guessed += f", which is not from {between[0]} to {between[1]}, as was asked"
    print(f"{what}: {answered}. {guessed}.")
