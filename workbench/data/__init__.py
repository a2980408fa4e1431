"""Preference data: pairs, edits, the journalled store, file formats and sources."""

from workbench.data.pairs import (
    AttributeValue,
    Message,
    PreferencePair,
    PreferenceSet,
    Text,
    plain,
)

__all__ = ["AttributeValue", "Message", "PreferencePair", "PreferenceSet", "Text", "plain"]
