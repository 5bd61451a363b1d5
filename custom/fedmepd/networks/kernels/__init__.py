"""The network's costly operations, written for the hardware; each stands beside its plain twin.

A twin, ``plain_...``, says in PyTorch's own operations what the kernel computes. It is what TorchScript and ONNX record
(:mod:`portable`), and what the kernel is tested against.
"""
