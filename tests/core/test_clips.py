"""Clips on disk: found again, kept by branches, refused when they can't be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.clips import ClipShape, ClipStore, StoredClip, place
from core.errors import InvalidParams, StorageFailed
from core.protocol import Job, new_job_id
from core.storage import LocalStorage
from tests.support.disk import fill, small_disk

SETTINGS = {"width": 32, "steps": 4}
SHAPE = ClipShape(size=(32, 16), fps=8, frames=12, init_bytes=3)


def write_latents(path: Path) -> None:
    path.write_bytes(b"latents")


class Film:
    """A job's store, and what a recipe does with it."""

    def __init__(self, outputs: Path, job: Job | None = None) -> None:
        self.job = job or Job(workflow="svi", params={}, attempt=1)
        self.outputs = outputs
        self.storage = LocalStorage(outputs)
        self.store = ClipStore(self.storage, self.job)

    def add(self, parent: StoredClip | None, prompt: str = "a", seed: int = 1) -> StoredClip:
        at = place(parent, prompt=prompt, seed=seed, settings=SETTINGS)
        with self.store.new_file(at, "mp4") as file:
            file.path.write_bytes(b"film" + prompt.encode())
            segment = file.commit()
        return self.store.add(
            at,
            SHAPE,
            segment,
            latents=write_latents,
            pixels={"held": np.ones((2, 4, 4, 3), np.uint8)},
        )

    def chain(self, *prompts: str) -> list[StoredClip]:
        clips: list[StoredClip] = []
        for prompt in prompts:
            clips.append(self.add(clips[-1] if clips else None, prompt))
        return clips

    def next_attempt(self) -> Film:
        return Film(self.outputs, self.job.model_copy(update={"attempt": self.job.attempt + 1}))


@pytest.fixture
def film(tmp_path: Path) -> Film:
    return Film(tmp_path / "outputs")


def refusal(film: Film, source: str, index: int) -> str:
    with pytest.raises(InvalidParams) as caught:
        film.store.kept(source, index, field="continue_from")
    assert caught.value.problems[0].field == "continue_from"
    return caught.value.message


def test_clips_stand_one_after_another(film: Film) -> None:
    clips = film.chain("a", "b", "c")
    assert [clip.index for clip in clips] == [0, 1, 2]
    assert [clip.start_frame for clip in clips] == [0, 12, 24]
    assert clips[2].parent == clips[1].key


def test_another_attempt_finds_what_was_made(film: Film) -> None:
    clips = film.chain("a", "b")
    assert film.next_attempt().store.made(None, SETTINGS) == clips


def test_clips_of_other_settings_are_not_found(film: Film) -> None:
    film.chain("a", "b")
    assert film.next_attempt().store.made(None, {**SETTINGS, "steps": 5}) == []


def test_what_was_made_counts_with_the_prompt_that_it_was_made_from(film: Film) -> None:
    """The plan may have changed since; what has begun can't be steered."""
    clips = film.chain("a", "as it was wanted then")
    assert [c.prompt for c in film.next_attempt().store.made(None, SETTINGS)] == [
        clip.prompt for clip in clips
    ]


@pytest.mark.parametrize("damage", ["segment", "latents", "pixels"])
def test_a_damaged_clip_is_made_again_and_those_before_it_are_kept(film: Film, damage: str) -> None:
    clips = film.chain("a", "b", "c")
    path = film.store.path(getattr(clips[1], damage))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert film.next_attempt().store.made(None, SETTINGS) == clips[:1]


def test_a_clip_without_its_record_is_not_there(film: Film) -> None:
    """Kill -9 between the files and the record."""
    clips = film.chain("a", "b")
    next(film.store.folder.glob("0001-*.json")).unlink()
    assert film.next_attempt().store.made(None, SETTINGS) == clips[:1]


def test_a_new_attempt_sweeps_what_was_half_written_and_keeps_clips(film: Film) -> None:
    clips = film.chain("a")
    half = film.store.folder / ".0001-x.1.mp4.1.partial.mp4"
    half.write_bytes(b"half")
    later = film.next_attempt()
    later.storage.sweep(later.job)
    assert not half.exists()
    assert later.store.made(None, SETTINGS) == clips


def test_pixels_come_back_as_they_were(film: Film) -> None:
    (clip,) = film.chain("a")
    assert np.array_equal(film.store.pixels(clip)["held"], np.ones((2, 4, 4, 3), np.uint8))


def test_a_branch_keeps_clips_as_its_own(film: Film, tmp_path: Path) -> None:
    clips = film.chain("a", "b", "c")
    branch = Film(film.outputs)
    assert branch.store.kept(film.job.id, 1, field="continue_from") == clips[:2]
    other = branch.add(clips[1], "another way")
    # Even when the first job is deleted.
    for path in film.store.folder.iterdir():
        path.unlink()
    assert branch.store.kept(film.job.id, 1, field="continue_from") == clips[:2]
    assert branch.store.made(clips[1], SETTINGS) == [other]
    assert branch.store.path(clips[0].segment).read_bytes() == b"filma"


def test_a_branch_takes_up_no_second_copy(film: Film) -> None:
    (clip,) = film.chain("a")
    branch = Film(film.outputs)
    branch.store.kept(film.job.id, 0, field="continue_from")
    assert branch.store.path(clip.segment).stat().st_nlink == 2


def test_the_newest_of_two_clips_at_one_place_is_kept(film: Film) -> None:
    (first,) = film.chain("a")
    film.add(first, "old")
    new = film.add(first, "new")
    assert Film(film.outputs).store.kept(film.job.id, 1, field="continue_from")[1] == new


def test_a_clip_that_is_not_there_is_refused_with_those_that_are(film: Film) -> None:
    film.chain("a", "b")
    assert f"clip 7 of job {film.job.id} does not exist: it has clips 0 to 1" in refusal(
        Film(film.outputs), film.job.id, 7
    )
    assert "it has no clips here" in refusal(Film(film.outputs), new_job_id(), 0)


def test_a_clip_of_an_older_version_is_refused(film: Film) -> None:
    film.chain("a")
    record = next(film.store.folder.glob("*.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 0}))
    message = refusal(Film(film.outputs), film.job.id, 0)
    assert "stored by another version of diffbox (clip format 0; this one reads 1)" in message


def test_a_damaged_clip_is_not_gone_on_from(film: Film) -> None:
    (clip,) = film.chain("a")
    film.store.path(clip.latents).write_bytes(b"")
    assert "is damaged" in refusal(Film(film.outputs), film.job.id, 0)


def test_a_full_disk_leaves_no_clip(tmp_path: Path) -> None:
    with small_disk(tmp_path / "outputs") as folder:
        film = Film(folder)
        (first,) = film.chain("a")
        fill(folder)
        with pytest.raises(StorageFailed):
            film.add(first, "b" * 5000)
        assert film.next_attempt().store.made(None, SETTINGS) == [first]
