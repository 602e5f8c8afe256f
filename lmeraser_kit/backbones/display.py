"""What a backbone shows of itself, as text and in Jupyter."""

from __future__ import annotations

from typing import Any

from lmeraser_kit.ground.html import card


class DisplayedBackbone:
    """Text and HTML for `Backbone`."""

    def _shown_name(self: Any) -> str:
        """The name; timm's `vit_tiny_patch16_224` would say 224 pixels of one that sees 32."""
        return f"a small ViT of {self.arguments['depth']} blocks" if "embed_dim" in self.arguments else self.name

    def __repr__(self: Any) -> str:
        return f"Backbone({self._shown_name()}, {self.sides} px, {self.n_features} features, {self.fingerprint[:12]})"

    def _repr_html_(self: Any) -> str:
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        facts = {
            "images": f"as squares of {self.sides} pixels",
            "features": f"{self.n_features}" + ", standardised by public samples" * bool(self.standard),
            "weights": f"{weights:,}, frozen, {self.precision}, on {self.device}",
            "fingerprint": self.fingerprint[:16],
        }
        return card(f"{type(self).__name__}: {self._shown_name()}", facts)

    @property
    def sides(self: Any) -> str:
        """Sides of the square inputs, in pixels, as in a name of `backbone_for`: 96+224."""
        return "+".join(str(side) for side in (*self.data_config.get("beside", ()), self.size))
