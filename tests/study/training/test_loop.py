import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from study.ledger.records import METRICS
from study.seeding import generator
from study.training import data, loop, models
from study.training.loop import initialised, train
from tests import idx
from tests.examples import RUN

RATES = (0.003, 0.01, 0.03)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return data.load(str(idx.write(tmp_path_factory.mktemp("digits"), idx.learnable())))


def runs(model="mlp_matched", rates=RATES, **changes):
    fields = dict(model=model, validation_size=100, batch_size=32, epochs=2) | changes
    return [RUN.model_copy(update=fields | {"learning_rate": rate}) for rate in rates]


def last(pack, dataset, **options):
    *_, epoch = train(pack, dataset, **options)
    return epoch


@pytest.fixture
def dropping(tmp_path, monkeypatch):
    """A fused model that draws and remembers as it trains."""
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2),\n"
        "                         nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def plainly(run, dataset):
    """The recipe written again without fusion: a plain module, torch.optim, one run; final test loss and accuracy."""
    mean, sd = run.pixel_mean, run.pixel_sd
    x, test_x = (
        torch.tensor(images).double().div(255).sub(mean).div(sd).unsqueeze(1)
        for images in (dataset.train_images, dataset.test_images)
    )
    y, test_y = (torch.tensor(labels).long() for labels in (dataset.train_labels, dataset.test_labels))
    train_index, _ = data.split(len(y), run.validation_size, run.split_seed)
    model = initialised(run, dataset).double()
    if run.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), run.learning_rate, run.momentum, weight_decay=run.weight_decay)
    else:
        optimizer = torch.optim.Adam(model.parameters(), run.learning_rate, run.betas, run.eps, run.weight_decay)
    steps = run.epochs * -(-len(train_index) // run.batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if run.schedule == "cosine" else None
    for epoch in range(1, run.epochs + 1):
        order = torch.tensor(train_index[generator("order", run.order_seed, epoch).permutation(len(train_index))])
        for batch in order.split(run.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch], label_smoothing=run.label_smoothing).backward()
            if run.gradient_clip:
                nn.utils.clip_grad_norm_(model.parameters(), run.gradient_clip)
            optimizer.step()
            if scheduler:
                scheduler.step()
    with torch.no_grad():
        logits = model(test_x)
    return float(F.cross_entropy(logits, test_y)), float((logits.argmax(1) == test_y).double().mean())


ADAM = dict(optimizer="adam", momentum=0.0, betas=(0.9, 0.999), eps=1e-8, schedule="cosine")


@pytest.mark.parametrize(
    "recipe",
    [dict(), dict(momentum=0.0), ADAM, dict(label_smoothing=0.1, gradient_clip=0.5)],
    ids=["momentum", "plain SGD", "Adam, cosine", "smoothed, clipped"],
)
@pytest.mark.parametrize("model", models.BUILT_IN)
def test_training_is_the_recipe(model, recipe, dataset):
    """Also with a last batch that is not full: 500 images in batches of 32."""
    pack = runs(model, **{"weight_decay": 0.001} | recipe)
    epoch = last(pack, dataset, dtype=torch.float64)
    for k, run in enumerate(pack):
        loss, accuracy = plainly(run, dataset)
        assert epoch.metrics["test_loss"][k] == pytest.approx(loss, abs=1e-9)
        assert epoch.metrics["test_accuracy"][k] == accuracy


def test_metrics_are_what_they_say(dataset):
    epochs = list(train(runs(), dataset))
    assert [e.epoch for e in epochs] == [1, 2]
    final = epochs[-1]
    assert set(final.history) == set(METRICS)
    assert all(values.shape == (2, 3) and values.dtype == np.float64 for values in final.history.values())
    labels = {"test": dataset.test_labels, "val": dataset.train_labels[data.split(600, 100, 0)[1]]}
    for split in ("val", "test"):
        predicted = final.predictions[split]
        assert (predicted.dtype, predicted.shape) == (np.uint8, (3, len(labels[split])))
        assert np.array_equal((predicted == labels[split]).mean(1), final.final[f"{split}_accuracy"])
        assert np.array_equal(final.metrics[f"{split}_accuracy"], final.final[f"{split}_accuracy"])
    assert (final.final["train_accuracy"] > 0.7).all()
    assert (final.final["train_loss"] < final.metrics["train_loss"]).all()


def test_twice_gives_the_same_bits(dataset):
    one, two = last(runs(), dataset), last(runs(), dataset)
    for name in METRICS:
        assert one.history[name].tobytes() == two.history[name].tobytes()
    assert one.predictions["test"].tobytes() == two.predictions["test"].tobytes()


def test_what_was_drawn_before_does_not_matter(dataset):
    one = last(runs(), dataset)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    state = torch.get_rng_state()
    two = last(runs(), dataset)
    assert one.history["test_loss"].tobytes() == two.history["test_loss"].tobytes()
    assert torch.equal(state, torch.get_rng_state()), "training left the caller's generator where it was"


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("mlp_matched", {}),
        ("lenet5", {}),
        ("lenet5", ADAM | dict(warmup_epochs=1.5)),
        ("dropping:Net", ADAM | dict(schedule="cosine")),
    ],
)
def test_a_checkpoint_goes_on_bit_for_bit(model, recipe, dataset, tmp_path, dropping):
    pack = runs(model, epochs=4, **recipe)
    whole = last(pack, dataset)
    for stop in (1, 3):
        generator_ = train(pack, dataset)
        for _ in range(stop):
            epoch = next(generator_)
        torch.save(epoch.state(), tmp_path / "state")
        state = torch.load(tmp_path / "state", weights_only=True)
        rest = list(train(pack, dataset, checkpoint=state))
        assert [e.epoch for e in rest] == list(range(stop + 1, 5))
        for name in METRICS:
            assert rest[-1].history[name].tobytes() == whole.history[name].tobytes()
        assert rest[-1].predictions["test"].tobytes() == whole.predictions["test"].tobytes()


def test_masks_hang_on_the_order_seed_alone_packed_or_not(dataset, dropping):
    """Running means and all: a rate's numbers are those it has alone, up to rounding; another order has others."""
    together = last(runs("dropping:Net"), dataset, dtype=torch.float64)
    for k, rate in enumerate(RATES):
        alone = last(runs("dropping:Net", (rate,)), dataset, dtype=torch.float64)
        for name in METRICS:
            assert together.history[name][:, k] == pytest.approx(alone.history[name][:, 0], abs=1e-9)
    over_seeds = [run.model_copy(update={"order_seed": s}) for s in range(2) for run in runs("dropping:Net", (0.01,))]
    losses = last(over_seeds, dataset, dtype=torch.float64).history["train_loss"][0]
    assert losses[0] == pytest.approx(together.history["train_loss"][0, 1], abs=1e-9)
    assert abs(losses[1] - losses[0]) > 1e-3


def test_running_statistics_that_are_not_finite_are_told(dataset, dropping, monkeypatch):
    real = loop.train_epoch

    def overflowing(model, *rest):
        metrics = real(model, *rest)
        next(b for name, b in model.named_buffers() if name.endswith("running_var"))[1, 0] = torch.inf
        return metrics

    monkeypatch.setattr(loop, "train_epoch", overflowing)
    assert last(runs("dropping:Net", epochs=1), dataset).finite.tolist() == [[True, False, True]]


def test_a_diverging_member_leaves_the_others_bit_for_bit_alone(dataset):
    """Its neighbours are compared with a pack of the same width in which nobody diverges."""
    tame, wild = (last(runs(rates=(0.003, rate, 0.03), epochs=3), dataset) for rate in (0.01, 1e30))
    assert wild.finite.tolist() == [[True, False, True]] * 3
    for name in METRICS:
        assert np.array_equal(tame.history[name][:, [0, 2]], wild.history[name][:, [0, 2]])


def test_once_diverged_always_diverged(dataset):
    finite = last(runs(rates=(0.01, 30.0, 1e4), epochs=6, model="lenet5"), dataset).finite
    assert (np.diff(finite.astype(int), axis=0) <= 0).all()
    assert finite[:, 0].all()


def test_the_same_seed_gives_the_same_batches_to_every_model_and_rate(dataset, monkeypatch):
    """Seen where they are trained on; another seed, and another epoch, has others."""
    seen = []
    original = loop.train_epoch

    def watched(model, optimizer, splits, orders, run):
        seen[-1].append(np.stack(orders).tobytes())
        return original(model, optimizer, splits, orders, run)

    monkeypatch.setattr(loop, "train_epoch", watched)
    for pack in (runs(), runs("lenet5", (0.3,)), runs(init_seed=3), runs(order_seed=1)):
        seen.append([])
        last(pack, dataset)
    assert seen[0] == seen[1] == seen[2]
    assert len({order for pack in (seen[0], seen[3]) for order in pack}) == 4


def test_initial_weights_hang_on_seed_and_model_alone(dataset):
    def weights(rate=0.01, **changes):
        return initialised(runs(rates=(rate,), **changes)[0], dataset).state_dict()["fc1.weight"]

    assert torch.equal(weights(), weights(rate=0.3, batch_size=8, order_seed=5))
    assert not torch.equal(weights(), weights(init_seed=5))


def test_a_pack_over_seeds_trains_each_member_on_its_own_batches(dataset):
    """Members of several seeds in one pack: the same as one by one, up to rounding."""
    pack = [run.model_copy(update={"init_seed": s, "order_seed": s}) for s in range(3) for run in runs(rates=(0.01,))]
    together = last(pack, dataset, dtype=torch.float64)
    for k, run in enumerate(pack):
        alone = last([run], dataset, dtype=torch.float64)
        assert together.metrics["test_loss"][k] == pytest.approx(alone.metrics["test_loss"][0], abs=1e-9)
        assert together.metrics["train_accuracy"][k] == alone.metrics["train_accuracy"][0]


def test_pack_size_changes_rounding_only(dataset):
    """Float32: equal to rounding after the first steps of one batch each."""
    together = last(runs(epochs=1, batch_size=500), dataset)
    for k, run in enumerate(runs(epochs=1, batch_size=500)):
        alone = last([run], dataset)
        for name in METRICS:
            assert together.metrics[name][k] == pytest.approx(alone.metrics[name][0], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_pack_size_changes_no_distribution(dataset):
    """Float32, trained on: over 12 seeds, packs of one and packs of three differ by no more than chance.

    Paired over seeds; LeNet-5, whose grouped convolutions round in another order than plain ones.
    """
    differences, levels = [], []
    for seed in range(12):
        pack = runs("lenet5", init_seed=seed, order_seed=seed, epochs=6, batch_size=8)
        together = last(pack, dataset).final["test_loss"]
        alone = [last([run], dataset).final["test_loss"][0] for run in pack]
        differences.append(together - alone)
        levels.append(alone)
    differences = np.array(differences)
    assert differences.any(axis=0).all(), "wider packs round otherwise, at every rate"
    assert (stats.ttest_1samp(differences, 0).pvalue > 0.001).all()
    # Far less than the luck of a seed.
    assert (np.abs(differences).mean(0) < np.std(levels, axis=0)).all()


def test_a_users_model_trains(dataset, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(1, 3, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(432, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    epoch = last(runs("mine:Net"), dataset)
    assert isinstance(models.build("mine:Net", (1, 28, 28), 10), nn.Module)
    assert (epoch.final["test_accuracy"] > 0.5).any()


def test_a_member_whose_last_evaluation_overflows_has_diverged(dataset, monkeypatch):
    """Only the loss over the whole training split, taken after the last epoch, is not finite."""
    real = loop.evaluate

    def overflowing(model, split, splits, shared):
        labels, loss, accuracy = real(model, split, splits, shared)
        if split is splits.train:
            loss[1] = torch.inf
        return labels, loss, accuracy

    monkeypatch.setattr(loop, "evaluate", overflowing)
    assert last(runs(), dataset).finite.tolist() == [[True] * 3, [True, False, True]]
