import json

import keras
import pytest

import hwa_keras
from hwa_keras.core.registry import Family

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


@widgets.register("packaged", package="my_lab")
class PackagedWidget(Configured):
    pass


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
        "PackagedWidget",
        "RoundWidget",
        "SizedWidget",
        "ball",
        "packaged",
        "round_widget",
        "sized_widget",
    ]


def test_unknown_name_lists_the_known_ones():
    message = (
        "Unknown widget 'oval'. Known names: PackagedWidget, RoundWidget, SizedWidget, "
        "ball, packaged, round_widget, sized_widget."
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


def test_members_are_registered_with_keras_under_the_package_that_is_given():
    name = keras.saving.get_registered_name
    assert name(RoundWidget) == "Custom>RoundWidget"
    assert name(PackagedWidget) == "my_lab>PackagedWidget"
    assert name(hwa_keras.devices.PCM) == "hwa_keras>PCM"


def test_arguments_go_with_names():
    assert widgets.get("ball", size=5).size == 5
    assert widgets.get("sized_widget", size=1, height=2).height == 2
    with pytest.raises(ValueError, match="no default for height"):
        widgets.get("sized_widget", size=1)
    for identifier in (None, RoundWidget()):
        with pytest.raises(TypeError, match=r"Arguments \(size\) go with the name"):
            widgets.get(identifier, size=5)


def test_names_that_are_taken_are_refused_and_nothing_is_registered():
    before = widgets.aliases()

    class Other(Configured):
        pass

    with pytest.raises(
        ValueError, match="'ball' of the widget .*Other is taken by .*R"
    ):
        widgets.register("free", "ball")(Other)
    Other.__name__ = "RoundWidget"
    with pytest.raises(ValueError, match="'RoundWidget' .* another name for the class"):
        widgets.register("free", package="elsewhere")(Other)
    Other.__name__ = "Gadget"  # A gadget of that name is in files of that package.
    with pytest.raises(ValueError, match="'Custom>Gadget' of the widget"):
        widgets.register("free")(Other)
    assert widgets.aliases() == before
    widgets.register("other_gadget", package="elsewhere")(Other)
    assert type(widgets.get("other_gadget")) is Other
    for name in ("Gadget", "other_gadget"):
        del widgets._members[name]


def test_a_class_that_is_defined_again_replaces_itself():
    def define():
        @widgets.register("again")
        class Again(Configured):
            pass

        return Again

    first, second = define(), define()
    assert first is not second
    assert type(widgets.get("again")) is second
    for name in ("Again", "again"):
        del widgets._members[name]


def test_what_cannot_be_registered_says_how_to():
    with pytest.raises(TypeError, match=r'@register\("my_widget", package="my_lab"\)'):
        widgets.register(RoundWidget)
    with pytest.raises(TypeError, match="must be a subclass of Device, and Unregist"):
        hwa_keras.devices.register("unregistered")(Unregistered)
    with pytest.raises(ValueError, match="'pcm' of the device .* taken by hwa_keras"):
        hwa_keras.devices.register("pcm")(type("Mine", (hwa_keras.devices.PCM,), {}))


@pytest.mark.parametrize("config", [{}, {"size": 3}])
def test_dictionary_that_is_no_configuration_is_rejected(config):
    with pytest.raises(ValueError, match="must be the configuration of a widget"):
        widgets.get(config)


def test_configuration_of_another_family_is_rejected():
    with pytest.raises(TypeError, match="as a widget"):
        widgets.get(gadgets.serialize(Gadget()))
