"""The filter chain, and what authors of filters import."""
