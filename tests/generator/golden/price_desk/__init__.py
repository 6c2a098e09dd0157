"""The versions of price_desk."""
