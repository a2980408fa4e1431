from hypothesis import settings

# A busy machine must not fail a property by its speed.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
