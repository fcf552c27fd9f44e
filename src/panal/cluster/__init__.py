"""What makes nodes one system: the configuration store, who this node is.

Higher nouns own their keys; this layer owns how they are kept.
"""
