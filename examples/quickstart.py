"""From a Keras model to a year on phase-change memory: table, plot, page, chip.

    python examples/quickstart.py
    python examples/quickstart.py --dataset=mnist --batch_size=256 --epochs=15 \\
        --learning_rate=0.002 --chips=25 --out=runs/mnist
"""

import pathlib

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


def train(model, data, callbacks=()):
    x, y = data.train
    steps = FLAGS.epochs * -(-len(x) // FLAGS.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(x, y, FLAGS.batch_size, FLAGS.epochs, verbose=2, callbacks=callbacks)
    accuracy = model.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]
    print(f"Test accuracy of {model.name} in software: {accuracy:.4f}")


def main(_):
    logging.set_verbosity(logging.WARNING)  # TensorFlow reports on each export else.
    keras.utils.set_random_seed(0)
    data, out = hwa_keras.datasets.load(FLAGS.dataset), pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    digital = keras.Sequential(name="digital")  # Nothing in it knows about hardware.
    digital.add(keras.Input(data.train[0].shape[1:]))
    digital.add(keras.layers.Flatten())
    for units in (256, 128) if FLAGS.dataset == "mnist" else (128, 64):
        digital.add(keras.layers.Dense(units, activation="relu"))
        digital.add(keras.layers.Dropout(0.2))
    digital.add(keras.layers.Dense(data.num_classes))
    train(digital, data)

    hwa = keras.models.clone_model(digital)  # Both are wanted at the end.
    hwa.set_weights(digital.get_weights())
    hwa.name = "hardware_aware"
    hwa_keras.to_hwa(hwa, kernel_noise=hwa_keras.noise.ProgrammingNoise(FLAGS.device))
    # Trained under more noise than a chip has, the model tolerates the chip's.
    train(hwa, data, [hwa_keras.training.NoiseRamp(stop=3.0, epochs=10)])

    def year(model):
        return hwa_keras.drift_sweep(
            model, FLAGS.device, data.test, chips=FLAGS.chips, verbose=0
        )

    years = [year(digital), year(hwa)]
    print(*years, sep="\n")
    years[0].to_csv(out / "results.csv", years[1])
    years[1].plot(out / "drift.png", axes=years[0].plot())
    hwa_keras.results.report(out / "report.html", "A year", years, conversions=hwa)

    chip = hwa_keras.program(hwa, FLAGS.device, seed=0)  # chip.t = 3600 ages it
    chip.save(out / "chip.keras")
    hwa_keras.export(chip, out / "saved_model", overwrite=True)
    hwa_keras.export_tflite(chip, out / "chip.tflite", overwrite=True)
    for name in ("saved_model", "chip.tflite"):
        off = hwa_keras.verify_export(out / name, chip, data.test[0][:256], [1.0, 3e7])
        print(f"{out / name}: largest relative difference from the chip {off:.1e}")


if __name__ == "__main__":
    app.run(main)
