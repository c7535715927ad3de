"""Tools by which programs that speak MCP make pictures, wait for them and look at them."""
