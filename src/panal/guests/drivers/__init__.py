"""One hypervisor a folder; base.py is the interface, fake.py has behaviour and ships with the product."""
