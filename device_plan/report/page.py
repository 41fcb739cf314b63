"""A plan's description as one HTML page that loads nothing else, for a phone or a desk."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from device_plan.report import quantity, sentences


def page(plan: Mapping[str, Any]) -> str:
    """The page of a description that device_plan.report.description.describe gave."""
    environment = Environment(
        loader=PackageLoader("device_plan.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": quantity.count,
        "size": quantity.size,
        "shape": sentences.shape,
    }
    return environment.get_template("page.html").render(plan=plan, sentences=sentences)
