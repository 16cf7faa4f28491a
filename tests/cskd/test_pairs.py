"""Partners: uniform over the class, reproducible by epoch, in workers and on every replica."""

import numpy as np
import pytest
import torch
from arrays import array_split
from scipy.stats import chisquare
from torch.utils.data import DataLoader, TensorDataset

from cskd.data.loader import TrainLoader
from cskd.data.transforms import CenterCrop, PadAndCrop
from cskd.pairs import PairBatchSampler, PairedDataset, PartnerSampler
from cskd.utils.seeding import generator

LABELS = np.arange(60) % 3


def paired(labels=LABELS, **options) -> PairedDataset:
    """Items whose x and partner are the images' indices."""
    return PairedDataset(TensorDataset(torch.arange(len(labels)), torch.as_tensor(labels)), labels, **options)


def partners_of(dataset: PairedDataset, epoch: int | None = None) -> list[int]:
    if epoch is not None:
        dataset.set_epoch(epoch)
    return [int(partner) for _, _, partner in (dataset[index] for index in range(len(dataset)))]


def batches_of(sampler: PairBatchSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_partners_are_uniform_over_the_class_including_the_image_itself():
    labels = np.array(["dog", "cat", "dog", "dog", "cat", "owl", "dog"])
    drawn = PartnerSampler(labels).draw(torch.arange(7).repeat(2000), generator(0, "test")).numpy().reshape(2000, 7)
    dataset = paired(labels=np.array([1, 0, 1, 1, 0, 2, 1]))
    epochs = np.array([partners_of(dataset, epoch) for epoch in range(400)])
    for partners in (drawn, epochs):
        for index, label in enumerate(labels):
            counts = np.bincount(partners[:, index], minlength=7)
            assert counts[labels != label].sum() == 0
            assert (labels == label).sum() == 1 or chisquare(counts[labels == label]).pvalue > 1e-3


def test_paired_dataset_gives_image_label_and_partner_of_the_same_class():
    dataset = paired()
    assert len(dataset) == 60
    for index in range(60):
        x, y, partner = dataset[index]
        assert (x, y) == (index, LABELS[index])
        assert LABELS[partner] == y


def test_partners_of_an_epoch_are_the_same_in_persistent_workers():
    expected = {epoch: partners_of(paired(), epoch) for epoch in (0, 1, 5)}
    assert len({*map(tuple, expected.values())}) == 3
    assert partners_of(paired(seed=1), 5) != expected[5]
    dataset = paired()
    loader = DataLoader(dataset, batch_size=7, num_workers=2, persistent_workers=True)
    for epoch in (5, 0, 1):
        dataset.set_epoch(epoch)
        assert torch.cat([partner for _, _, partner in loader]).tolist() == expected[epoch]


def test_partners_without_set_epoch_follow_torchs_generator():
    dataset = paired()
    torch.manual_seed(0)
    first, second = partners_of(dataset), partners_of(dataset)
    torch.manual_seed(0)
    assert partners_of(dataset) == first != second


def test_dict_items_get_the_entries_of_their_partner():
    dataset = PairedDataset([{"image": index, "labels": index % 2} for index in range(8)], [0, 1] * 4)
    item = dataset[3]
    partner = item["partner_image"]
    assert partner % 2 == 1
    assert item == {"image": 3, "labels": 1, "partner_image": partner, "partner_labels": 1}


def test_targets_are_the_default_labels_and_transform_is_the_wrapped_datasets():
    wrapped = TensorDataset(torch.arange(6), torch.arange(6))
    wrapped.targets, wrapped.transform = [0, 1, 0, 1, 0, 1], "old"
    dataset = PairedDataset(wrapped)
    assert dataset[2][2] % 2 == 0
    assert dataset.transform == "old"
    dataset.transform = "new"
    assert wrapped.transform == "new"


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "has no `targets`: give labels"), ([0, 1], "2 labels for 6 items"), (np.eye(6), r"\(N,\).*\(6, 6\)")],
)
def test_paired_dataset_rejects_missing_labels_and_one_hot_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        PairedDataset(TensorDataset(torch.arange(6)), labels)


def test_pair_batches_are_those_of_the_suites_loader():
    pixels = [np.full((8, 8, 3), index, dtype=np.uint8) for index in range(60)]
    loader = TrainLoader(
        array_split(pixels, LABELS),
        PadAndCrop(8, 0),
        CenterCrop(8),
        views=frozenset({"x", "partner"}),
        batch_size=8,
        seed=2,
        device=torch.device("cpu"),
    )
    batches = batches_of(PairBatchSampler(LABELS, batch_size=8, seed=2), 4)
    expected = [torch.cat([batch.views["x"], batch.views["partner"]])[:, 0, 0, 0].tolist() for batch in loader.epoch(4)]
    assert batches == expected


def test_each_pass_of_a_pair_batch_sampler_is_the_next_epoch():
    sampler = PairBatchSampler(LABELS, batch_size=16)
    assert len(sampler) == 4
    passes = [list(sampler) for _ in range(3)]
    assert [len(batch) for batch in passes[0]] == [32, 32, 32, 24]
    assert passes[0] != passes[1] != passes[2]
    assert batches_of(sampler, 1) == passes[1]
    assert list(sampler) == passes[2]


@pytest.mark.parametrize(("batch_size", "batches"), [(59, 1), (30, 2), (61, 0)])
def test_drop_last_leaves_out_only_a_smaller_last_batch(batch_size, batches):
    sampler = PairBatchSampler(LABELS, batch_size, drop_last=True)
    assert len(sampler) == batches
    assert batches_of(sampler, 2) == batches_of(PairBatchSampler(LABELS, batch_size), 2)[:batches]


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_replicas_share_an_epoch_without_overlap(replicas):
    batches = [batches_of(PairBatchSampler(LABELS, 4, replicas, rank), 3) for rank in range(replicas)]
    images = [index for rank in batches for batch in rank for index in batch[: len(batch) // 2]]
    assert len({tuple(map(len, rank)) for rank in batches}) == 1
    assert {*images} == {*range(60)}
    assert len(images) == -(-60 // replicas) * replicas  # filled up by repeating images
    step = [index for rank in batches for index in rank[0][:4]]
    assert {*step} == {*batches_of(PairBatchSampler(LABELS, 4 * replicas), 3)[0][: 4 * replicas]}


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 4, "num_replicas": 2, "rank": 2}])
def test_pair_batch_sampler_rejects_invalid_sizes(options):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        PairBatchSampler(LABELS, **options)


def test_pair_batch_sampler_rejects_one_hot_labels():
    with pytest.raises(ValueError, match=r"\(N,\).*\(60, 3\)"):
        PairBatchSampler(np.eye(3)[LABELS], batch_size=4)
