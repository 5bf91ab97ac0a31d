from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workloads.errors import WorkloadError
from workloads.explain import integrated_gradients as module
from workloads.explain.integrated_gradients import baselines_of, integrated_gradients, path_integral
from workloads.explain.network import class_weights, logits_of
from workloads.explain.regions import explain_region, sides_of

PROGRAM = Path(__file__).with_name("explain_devices.py")


@pytest.fixture
def keras() -> Any:
    from tensorflow import keras

    keras.utils.set_random_seed(0)
    return keras


def images(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def test_of_a_linear_network_each_value_adds_its_weight_times_its_distance_from_the_baseline(keras: Any) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    x, start = images(5, 4, 4, 1), images(1, 5, 4, 4, 1) + 1
    found = integrated_gradients(model, x, start, class_weights(model, [0, 1, 2, 1, 0]), steps=3)
    kernel = np.asarray(model.layers[-1].kernel)[:, [0, 1, 2, 1, 0]].T.reshape(5, 4, 4, 1)
    np.testing.assert_allclose(found.values, kernel * (x - start[0]), rtol=1e-4, atol=1e-5)
    assert found.gaps.max() < 1e-4


def test_steps_and_images_in_batches_give_what_a_loop_over_both_gives(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    inputs = keras.Input((6, 5, 2))
    x = keras.layers.AveragePooling2D(1)(keras.layers.Conv2D(4, 3, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    array, start = images(3, 6, 5, 2), np.zeros((3, 6, 5, 2), dtype=np.float32)
    looped = np.zeros_like(array)
    for alpha in (np.arange(7) + 0.5) / 7:
        point = tf.constant((alpha * array).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(point)
            answer = tf.reduce_sum(model(point)[:, 1])
        looped += np.asarray(tape.gradient(answer, point)) * array / 7
    weights = class_weights(model, [1, 1, 1])
    for values in (1, 3 * 60, 2**20):  # a step at once, three steps, everything
        monkeypatch.setattr(module, "batch_of", lambda shape, values=values: max(1, values // int(np.prod(shape))))
        found = integrated_gradients(model, array, start, weights, steps=7)
        np.testing.assert_allclose(found.values, looped, rtol=1e-4, atol=1e-6)


def test_more_steps_close_the_gap_of_completeness(keras: Any) -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="exponential")(inputs))
    x, start = 3 * images(2, 3), np.zeros((2, 3), dtype=np.float32)
    path, ones = path_integral(model), np.ones((2, 1), dtype=np.float32)
    few, many = (integrated_gradients(model, x, start, ones, steps=steps, path=path).gaps for steps in (2, 100))
    assert (many < few).all()
    assert many.max() < 1e-3


def test_max_pooling_of_equal_voxels_sends_the_gradient_to_one_of_them(keras: Any) -> None:
    # TensorFlow's eager gradient reaches every voxel within 1e-5 of the maximum: the sum would be several times as large.
    inputs = keras.Input((8, 8, 8, 1))
    flat = keras.layers.Flatten()(keras.layers.MaxPooling3D(2)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(flat))
    x = np.random.default_rng(0).integers(1, 3, (1, 8, 8, 8, 1)).astype(np.float32)
    found = integrated_gradients(model, x, np.zeros_like(x), np.ones((1, 1), dtype=np.float32), steps=8)
    kernel = np.asarray(model.layers[-1].kernel).reshape(4, 4, 4)
    blocks = x.reshape(4, 2, 4, 2, 4, 2).transpose(0, 2, 4, 1, 3, 5).reshape(4, 4, 4, 8)
    exact = np.zeros_like(blocks)
    np.put_along_axis(exact, blocks.argmax(axis=-1)[..., None], (blocks.max(axis=-1) * kernel)[..., None], axis=-1)
    ours = found.values.reshape(4, 2, 4, 2, 4, 2).transpose(0, 2, 4, 1, 3, 5).reshape(4, 4, 4, 8)
    np.testing.assert_allclose(ours.sum(axis=-1), exact.sum(axis=-1), rtol=1e-4)
    assert (np.count_nonzero(ours, axis=-1) == 1).all()
    assert found.gaps.max() < 1e-4


def test_noise_lies_within_an_image_and_is_the_same_for_a_seed() -> None:
    x = images(2, 8, 8, 3) * np.array([1.0, 5.0, 0.1], dtype=np.float32)
    noise = baselines_of(x, "noise", seed=4, number=3)
    assert noise.shape == (3, 2, 8, 8, 3)
    assert (noise >= x.min(axis=(1, 2), keepdims=True)).all()
    assert (noise <= x.max(axis=(1, 2), keepdims=True)).all()
    assert noise[..., 1].std() > 10 * noise[..., 2].std()
    np.testing.assert_array_equal(noise, baselines_of(x, "noise", seed=4, number=3))
    assert not np.array_equal(noise[0], noise[1])
    assert not baselines_of(x, "zero").any()


def test_a_blurred_baseline_keeps_the_mean_and_mixes_neither_images_nor_channels() -> None:
    x = np.zeros((2, 16, 16, 2), dtype=np.float32)
    x[1, :, :, 1] = images(16, 16)
    blurred = baselines_of(x, "blurred", sigma=2.0)[0]
    assert not blurred[0].any()
    assert not blurred[..., 0].any()
    assert blurred.std() < 0.3 * x.std()


def test_several_baselines_are_averaged_and_stay_complete(keras: Any) -> None:
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(3, 3, activation="softplus")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    array, weights = images(2, 4, 4, 1), class_weights(model, [0, 1])
    starts = baselines_of(array, "noise", number=3)
    whole = integrated_gradients(model, array, starts, weights, steps=50)
    each = [integrated_gradients(model, array, start, weights, steps=50).values for start in starts]
    np.testing.assert_allclose(whole.values, np.mean(each, axis=0), rtol=1e-4, atol=1e-6)
    assert whole.gaps.max() < 1e-2


def test_the_softmax_at_the_end_is_taken_off_wherever_it_is(keras: Any) -> None:
    layers = keras.layers
    inputs = keras.Input((5,))
    plain = keras.Model(inputs, layers.Dense(3, name="last")(inputs))
    array = images(4, 5)
    for last in (layers.Dense(3, activation="softmax"), layers.Dense(3, activation="sigmoid")):
        model = keras.Model(inputs, last(inputs))
        model.set_weights(plain.get_weights())
        np.testing.assert_allclose(np.asarray(logits_of(model)(array)), np.asarray(plain(array)), rtol=1e-5)
        assert not np.allclose(np.asarray(model(array)), np.asarray(plain(array)))
    ended = keras.Sequential([inputs, plain.layers[-1], layers.Softmax()])
    np.testing.assert_allclose(np.asarray(logits_of(ended)(array)), np.asarray(plain(array)), rtol=1e-5)


def test_a_baseline_of_another_shape_is_refused(keras: Any) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(WorkloadError, match="the baseline is 5 x 4 x 1, but the image is 4 x 4 x 1"):
        integrated_gradients(model, images(1, 4, 4, 1), images(1, 1, 5, 4, 1), class_weights(model, [0]))


def test_a_gradient_that_is_not_finite_is_refused(keras: Any) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(WorkloadError, match=r"one\.png: the gradient of the network is not finite"):
        integrated_gradients(
            model, images(1, 4, 4, 1), images(1, 1, 4, 4, 1), class_weights(model, [0]), names=["one.png"]
        )


@pytest.mark.parametrize(
    ("values", "devices", "used"),
    [(2**20, 4, 1), (2**23, 1, 1), (2**24, 2, 2), (2**24, 4, 1), (2**25, 4, 4)],
)
def test_small_work_stays_on_one_device(values: int, devices: int, used: int) -> None:
    assert module._devices(values, SimpleNamespace(num_replicas_in_sync=devices)) == used
    assert module._devices(values, None) == 1


def test_each_midpoint_is_computed_once_however_they_are_shared_out() -> None:
    for steps, devices, largest in ((200, 1, 42), (200, 4, 42), (23, 3, 4), (2, 4, 1)):
        alphas, parts = module._midpoints(steps, devices, largest)
        assert alphas.shape[0] == devices
        assert alphas.shape[2] <= largest
        np.testing.assert_allclose(np.sort(alphas[parts > 0]), (np.arange(steps) + 0.5) / steps, rtol=1e-6)
        assert parts.sum() == pytest.approx(1.0)


@pytest.mark.tensorflow
def test_several_devices_give_what_one_gives() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "3"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROGRAM.parents[2]), "HOME": os.environ["HOME"], "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["devices"] == 3
    assert told["difference"] < 1e-5
    assert told["gap"] < 0.05


def test_a_segmenter_is_explained_in_a_window_about_the_region_and_only_there(keras: Any) -> None:
    layers = keras.layers
    inputs = keras.Input((None, None, None, 1))
    half = layers.AveragePooling3D(2)(inputs)
    x = layers.Concatenate()([inputs, layers.UpSampling3D(2)(half)])
    model = keras.Model(inputs, layers.Conv3D(2, 1)(x))
    sides = sides_of(model, window=4)
    assert (sides.window, sides.multiple, sides.slices) == ((4, 4, 4), (2, 2, 2), False)
    volume, region = images(9, 9, 5, 1), np.zeros((9, 9, 5), dtype=bool)
    region[7, 7, 3] = True
    values, found = explain_region(path_integral(model), model, volume, region, 1, sides, baseline="zero", steps=10)
    assert values.shape == (9, 9, 5)
    assert np.abs(values[5:, 5:, 1:]).sum() == pytest.approx(np.abs(values).sum())
    assert np.count_nonzero(values) == 8  # the voxels that are pooled together with it
    assert found.gaps.max() < 1e-3


def test_of_a_network_of_slices_only_those_of_the_region_are_explained(keras: Any) -> None:
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same")(inputs))
    sides = sides_of(model)
    assert sides.slices
    volume, region = images(7, 6, 4, 1), np.zeros((7, 6, 4), dtype=bool)
    region[2:4, 3, [0, 2]] = True
    values, found = explain_region(path_integral(model), model, volume, region, 2, sides, baseline="zero", steps=4)
    assert [bool(values[..., z].any()) for z in range(4)] == [True, False, True, False]
    assert len(found.answers) == 2
