"""A package, so that ``from tests.contract import ...`` finds this folder and not another ``tests`` on the path."""
