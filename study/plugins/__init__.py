"""Levels from outside the package: how their modules are found, what they register, and what they are held to."""

from study.plugins.contract import check_attention, check_augmentation, check_merge, check_statistic
from study.plugins.loading import (
    import_plugin,
    installed,
    load_network,
    load_plugins,
    module_of,
    refuse_foreign,
    site_folders,
    sought,
)
from study.plugins.sources import file_of, plugin_sources, registered_by

__all__ = [
    "check_attention",
    "check_augmentation",
    "check_merge",
    "check_statistic",
    "file_of",
    "import_plugin",
    "installed",
    "load_network",
    "load_plugins",
    "module_of",
    "plugin_sources",
    "refuse_foreign",
    "registered_by",
    "site_folders",
    "sought",
]
