"""From a Keras model to a year on phase-change memory: table, plot, page, chip.

python examples/quickstart.py --dataset=mnist --epochs=15 --chips=25
"""

import keras
from absl import app, flags, logging

import hwa_keras

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "digits", ["digits", "mnist"], "What to learn.")
flags.DEFINE_enum("device", "pcm", ["pcm", "simple_pcm"], "What chips are made of.")
flags.DEFINE_integer("epochs", 20, "Epochs of each of the two trainings.", 1)
flags.DEFINE_integer("batch_size", 32, "Examples of a step.", 1)
flags.DEFINE_float("learning_rate", 0.003, "Of Adam; it decays along a cosine.", 0.0)
flags.DEFINE_integer("chips", 10, "Chips of each model.", 1)
flags.DEFINE_string("out", "runs/quickstart", "Folder for all that is written.")


def train(model, data, ramp=()):
    steps = FLAGS.epochs * -(-len(data.train[0]) // FLAGS.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(*data.train, FLAGS.batch_size, FLAGS.epochs, verbose=2, callbacks=ramp)
    print(f"{model.name} in software: {model.evaluate(*data.test, verbose=0)[1]:.4f}")


def main(_):
    logging.set_verbosity(logging.WARNING)  # TensorFlow reports on each export else.
    keras.utils.set_random_seed(0)
    data, device, out = hwa_keras.datasets.load(FLAGS.dataset), FLAGS.device, FLAGS.out
    layers = [keras.Input(data.train[0].shape[1:]), keras.layers.Flatten()]
    for units in (256, 128) if FLAGS.dataset == "mnist" else (128, 64):
        layers += [keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.2)]
    layers.append(keras.layers.Dense(data.num_classes))
    digital = keras.Sequential(layers, name="digital")
    train(digital, data)
    hwa = keras.models.clone_model(digital)
    hwa.set_weights(digital.get_weights())
    hwa.name = "hardware_aware"
    hwa_keras.to_hwa(hwa, kernel_noise=hwa_keras.noise.ProgrammingNoise(device))
    # Trained under more noise than a chip has, the model tolerates the chip's.
    train(hwa, data, [hwa_keras.training.NoiseRamp(stop=3.0, epochs=10)])
    print(first := hwa_keras.drift_sweep(digital, device, data.test, chips=FLAGS.chips))
    print(second := hwa_keras.drift_sweep(hwa, device, data.test, chips=FLAGS.chips))
    first.to_csv(f"{out}/results.csv", second)
    second.plot(f"{out}/drift.png", axes=first.plot())
    hwa_keras.results.report(f"{out}/report.html", "A year", [first, second], hwa)
    chip = hwa_keras.program(hwa, device, seed=0)  # chip.t = 3600 ages it
    chip.save(f"{out}/chip.keras")
    hwa_keras.export(chip, f"{out}/saved_model", overwrite=True)
    hwa_keras.export_tflite(chip, f"{out}/chip.tflite", overwrite=True)
    for name in ("saved_model", "chip.tflite"):
        off = hwa_keras.verify_export(f"{out}/{name}", chip, data.test[0], [1.0, 3e7])
        print(f"{out}/{name}: largest relative difference from the chip {off:.1e}")


app.run(main)
