"""What every route needs of HTTP: forms and formats, who may enter, who left, how a refusal looks.

Touches the web framework; knows no route.
"""
