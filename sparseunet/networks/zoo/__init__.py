"""Networks of the papers, one file per family; `sparseunet.networks.build` builds them by name.

Each builder takes a `NetworkPlan` whose numbers come from `sparseunet.planning.architectures`, the
number of input channels and outputs, and whether training wants every output; it returns the
network with its weights initialised as its paper or its package does.
"""
