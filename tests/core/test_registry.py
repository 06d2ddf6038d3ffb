import json

import keras
import pytest

from hwa_keras import devices, noise, quantizers
from hwa_keras.core.registry import Family, copy_of

widgets = Family("widget")
gadgets = Family("gadget", takes_callables=True)


class Configured:
    def __init__(self, size=3):
        self.size = size

    def get_config(self):
        return {"size": self.size}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@widgets.register("round_widget", "ball")
class RoundWidget(Configured):
    pass


@widgets.register("sized_widget")
class SizedWidget(Configured):
    def __init__(self, size, height, *, colour="red"):
        super().__init__(size)
        self.height = height

    def get_config(self):
        return {**super().get_config(), "height": self.height}


@gadgets.register("gadget")
class Gadget(Configured):
    pass


class Unregistered:
    pass


def test_none_is_none():
    assert widgets.get(None) is None


@pytest.mark.parametrize("name", ["RoundWidget", "round_widget", "ball"])
def test_names_give_an_object_with_default_arguments(name):
    found = widgets.get(name)
    assert type(found) is RoundWidget
    assert found.size == 3
    assert widgets.get(name) is not found


def test_members_are_returned_as_they_are():
    member = RoundWidget(5)
    assert widgets.get(member) is member

    class Descendant(RoundWidget):
        pass

    descendant = Descendant()
    assert widgets.get(descendant) is descendant


def test_aliases_are_sorted_and_of_this_family_alone():
    assert widgets.aliases() == [
        "RoundWidget",
        "SizedWidget",
        "ball",
        "round_widget",
        "sized_widget",
    ]


def test_unknown_name_lists_the_known_ones():
    message = (
        "Unknown widget 'oval'. Known names: RoundWidget, SizedWidget, ball, "
        "round_widget, sized_widget."
    )
    with pytest.raises(ValueError, match=message):
        widgets.get("oval")


def test_name_of_a_class_with_required_arguments_says_which():
    message = r"SizedWidget has no default for size, height.*SizedWidget\(size=...\)"
    with pytest.raises(ValueError, match=message):
        widgets.get("sized_widget")


@pytest.mark.parametrize("family", [widgets, gadgets])
@pytest.mark.parametrize("cls", [RoundWidget, Gadget, Unregistered])
def test_class_in_place_of_an_object_says_so(family, cls):
    message = rf"must be an object, and {cls.__name__} is a class.*{cls.__name__}\("
    with pytest.raises(TypeError, match=message):
        family.get(cls)


@pytest.mark.parametrize("identifier", [3, 1.5, ["ball"], Unregistered(), Gadget()])
def test_other_objects_are_rejected(identifier):
    with pytest.raises(TypeError, match="Could not interpret .* as a widget. Give a"):
        widgets.get(identifier)


def test_callables_only_where_the_family_takes_them():
    def function(x):
        return x

    assert gadgets.get(function) is function
    with pytest.raises(TypeError, match="as a widget"):
        widgets.get(function)


def test_configuration_round_trips_as_json():
    config = json.loads(json.dumps(widgets.serialize(SizedWidget(4, 2))))
    for found in (widgets.deserialize(config), widgets.get(config)):
        assert type(found) is SizedWidget
        assert (found.size, found.height) == (4, 2)


def test_members_are_registered_with_keras():
    assert keras.saving.get_registered_name(RoundWidget) == "hwa_keras>RoundWidget"


@pytest.mark.parametrize("config", [{}, {"size": 3}])
def test_dictionary_that_is_no_configuration_is_rejected(config):
    with pytest.raises(ValueError, match="must be the configuration of a widget"):
        widgets.get(config)


def test_configuration_of_another_family_is_rejected():
    with pytest.raises(TypeError, match="as a widget"):
        widgets.get(gadgets.serialize(Gadget()))


def test_copy_shares_nothing_and_keeps_the_configuration():
    quantizer = quantizers.Uniform(levels=5, scale="max", axis=-1)
    copy = copy_of(quantizer)
    assert copy is not quantizer
    assert copy.get_config() == quantizer.get_config()
    original = noise.AdditiveGaussian(0.1)
    copy = copy_of(original)
    copy.scale.assign(0.5)
    assert float(original.scale.value) == 1.0


def test_copy_of_an_object_without_configuration_is_the_object():
    assert copy_of(abs) is abs
    assert copy_of(None) is None


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (
            quantizers,
            ["SteSign", "ste_sign", "DoReFa", "dorefa", "dorefa_quantizer"]
            + ["Uniform", "uniform"],
        ),
        (noise, ["ProgrammingNoise", "programming_noise"]),
        (devices, ["PCM", "pcm", "SimplePCM", "simple_pcm"]),
    ],
    ids=["quantizers", "noise", "devices"],
)
def test_public_families_know_their_names(family, names):
    for name in names:
        member = family.get(name)
        config = json.loads(json.dumps(family.serialize(member)))
        again = family.get(config)
        assert type(again) is type(member)
        assert again.get_config() == member.get_config()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (quantizers, "Unknown quantizer 'x'. Known names: .*dorefa.*ste_sign.*uniform"),
        (noise, "Unknown noise 'x'. Known names: .*additive_gaussian.*programming_noi"),
        (devices, "Unknown device 'x'. Known names: .*pcm, simple_pcm"),
    ],
    ids=["quantizers", "noise", "devices"],
)
def test_unknown_public_name_lists_the_known_ones(family, message):
    with pytest.raises(ValueError, match=message):
        family.get("x")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("additive_gaussian", "std"),
        ("multiplicative_gaussian", "std"),
        ("drop_connect", "rate"),
        ("compose", "noises"),
    ],
)
def test_noises_that_need_an_argument_say_which(name, argument):
    with pytest.raises(ValueError, match=f"no default for {argument}, so a name"):
        noise.get(name)
