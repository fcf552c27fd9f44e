"""Panal: three or more ordinary servers as one platform for virtual machines and containers."""
