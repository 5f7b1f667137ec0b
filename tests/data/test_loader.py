"""The training stream: whole epochs, reshuffled, the same by seed, resumable at any batch."""

import json

import numpy as np
import pytest

from stlm_jax.data.loader import TrainLoader, shard
from stlm_jax.runtime.errors import UserError


def images(count=11):
    """Each image is filled with its own index."""
    index = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(index, (count, 4, 4, 3)).copy()


def take(loader, steps):
    batches = [next(loader)["image"] for _ in range(steps)]
    assert all(batch.dtype == np.uint8 for batch in batches)
    return [batch[:, 0, 0, 0].tolist() for batch in batches]


def test_an_epoch_shows_each_image_at_most_once_and_drops_the_rest():
    loader = TrainLoader(images(), 3, seed=0)
    assert loader.steps_per_epoch == 3
    epochs = [sum(take(loader, 3), []) for _ in range(30)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert {index for epoch in epochs for index in epoch} == set(range(11))


def test_batches_are_whole_images():
    batch = next(TrainLoader(images(), 2, seed=0))
    assert batch.keys() == {"image", "index"}
    assert batch["image"].shape == (2, 4, 4, 3)
    assert (batch["image"] == batch["image"][:, :1, :1, :1]).all()


def test_batches_say_the_numbers_of_their_images():
    loader = TrainLoader(images(), 3, seed=4)
    for _ in range(7):
        batch = next(loader)
        np.testing.assert_array_equal(batch["index"], batch["image"][:, 0, 0, 0])


def test_what_belongs_to_a_batch_is_told_its_number_in_the_stream():
    class Numbers:
        order = {"of": "numbers"}

        def of(self, number, index, rows):
            return {"number": number, "sum": index[rows].sum()}

    loader = TrainLoader(images(), 3, seed=4, companion=Numbers())
    taken = [next(loader) for _ in range(8)]
    assert [batch["number"] for batch in taken] == list(range(8))
    assert all(batch["sum"] == batch["index"].sum() for batch in taken)
    state = json.loads(json.dumps(loader.get_state()))
    fresh = TrainLoader(images(), 3, seed=4, companion=Numbers())
    fresh.set_state(state)
    assert next(fresh)["number"] == 8
    with pytest.raises(UserError, match="does not fit"):
        TrainLoader(images(), 3, seed=4).set_state(state)


def test_a_state_of_the_release_before_is_taken():
    """Its pipeline had no numbers; the place is that of the batch alone."""
    state = {"seed": 3, "batch_size": 2, "images": 11, "grain": {"next_index": 7}}
    whole, later = TrainLoader(images(), 2, seed=3), TrainLoader(images(), 2, seed=3)
    later.set_state(state)
    assert take(later, 5) == take(whole, 12)[7:]


def test_the_order_depends_on_the_seed_alone():
    order = take(TrainLoader(images(), 2, seed=5), 20)
    assert take(TrainLoader(images(), 2, seed=5), 20) == order
    assert take(TrainLoader(images(), 2, seed=6), 20) != order


def test_every_epoch_has_an_order_of_its_own():
    loader = TrainLoader(images(8), 8, seed=0)
    orders = [tuple(batch) for batch in take(loader, 10)]
    assert len(set(orders)) == 10
    assert all(sorted(order) == list(range(8)) for order in orders)


@pytest.mark.parametrize("done", [0, 1, 4, 5, 13])
def test_resuming_gives_exactly_the_remaining_batches(done):
    loader = TrainLoader(images(), 2, seed=3)
    take(loader, done)
    state = json.loads(json.dumps(loader.get_state()))
    rest = take(loader, 12)
    fresh = TrainLoader(images(), 2, seed=3)
    take(fresh, 7)  # a loader that has prefetched elsewhere
    fresh.set_state(state)
    assert take(fresh, 12) == rest


def test_a_state_of_another_stream_is_refused():
    state = TrainLoader(images(), 2, seed=3).get_state()
    for other in (
        TrainLoader(images(), 3, seed=3),
        TrainLoader(images(), 2, seed=4),
        TrainLoader(images(10), 2, seed=3),
    ):
        with pytest.raises(UserError, match=r"train\.batch_size"):
            other.set_state(state)


def test_too_few_images_name_the_key():
    with pytest.raises(UserError, match=r"train\.batch_size: 12 exceeds the 11"):
        TrainLoader(images(), 12, seed=0)
    with pytest.raises(UserError, match=r"train\.batch_size: 0"):
        TrainLoader(images(), 0, seed=0)
    with pytest.raises(UserError, match="no training image"):
        TrainLoader(images(0), 1, seed=0)


def test_a_batch_may_be_changed_without_touching_the_images():
    source = images()
    loader = TrainLoader(source, 2, seed=0)
    next(loader)["image"][...] = 99
    np.testing.assert_array_equal(source, images())


def test_close_ends_the_stream():
    loader = TrainLoader(images(), 2, seed=0)
    next(loader)
    loader.close()
    with pytest.raises(ValueError):
        next(loader)


# --- several processes ---


@pytest.mark.parametrize("count", [11, 12, 2])
def test_shards_are_disjoint_and_together_the_set(count):
    shards = [shard(range(count), process, 2) for process in range(2)]
    assert sorted([*shards[0], *shards[1]]) == list(range(count))
    assert abs(len(shards[0]) - len(shards[1])) <= 1


class Rows:
    """Belongs to every batch: which images all of it has, and the process's own."""

    order = {"of": "rows"}

    def of(self, number, index, rows):
        return {"number": number, "whole": index.tolist(), "own": index[rows].tolist()}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_make_the_batches_of_one_together(processes):
    def loader(**options):
        return TrainLoader(images(20), 6, seed=1, companion=Rows(), **options)

    one = loader()
    several = [loader(processes=processes, process=process) for process in range(processes)]
    for number in range(3 * one.steps_per_epoch):
        whole, parts = next(one), [next(each) for each in several]
        for name in ("image", "index"):
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])
        assert all(len(part["image"]) == 6 // processes for part in parts)
        assert all(part["whole"] == whole["index"].tolist() for part in parts)
        assert sum([part["own"] for part in parts], []) == whole["own"]
        assert {part["number"] for part in parts} == {number}


def test_a_process_reads_its_rows_only():
    read = []

    class Counting:
        def __len__(self):
            return 12

        def __getitem__(self, index):
            read.append(index)
            return images(12)[index]

    loader = TrainLoader(Counting(), 4, seed=1, processes=2, process=1)
    taken = [next(loader)["index"].tolist() for _ in range(3)]
    assert set(sum(taken, [])) <= set(read)
    loader.close()
    # Those that follow were read ahead: of a whole epoch still not more than the half.
    assert len(read) <= 2 * 3 + 2 * 6


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"train\.batch_size: 5 cannot be divided among 2"):
        TrainLoader(images(12), 5, seed=1, processes=2)


def test_the_state_serves_any_number_of_processes():
    whole = TrainLoader(images(11), 2, seed=1)
    second = TrainLoader(images(11), 2, seed=1, processes=2, process=1)
    take(whole, 7)
    state = json.loads(json.dumps(whole.get_state()))
    take(second, 2)
    second.set_state(state)
    expected = [batch[1:] for batch in take(whole, 9)]
    assert take(second, 9) == expected
    assert second.get_state().keys() == state.keys()


def test_batches_are_read_ahead_and_the_state_counts_those_taken():
    read = []

    class Companion:
        order = {}

        def of(self, number, index, rows):
            read.append(number)
            return {}

    loader = TrainLoader(images(), 2, seed=3, companion=Companion())
    for _ in range(3):
        next(loader)
    state = loader.get_state()
    rest = [np.asarray(next(loader)["image"]) for _ in range(4)]
    assert len(read) >= 7
    fresh = TrainLoader(images(), 2, seed=3)
    fresh.set_state(state)
    np.testing.assert_array_equal([next(fresh)["image"] for _ in range(4)], rest)
