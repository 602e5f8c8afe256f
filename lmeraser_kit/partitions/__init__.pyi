from .hashed import HashClusters as HashClusters
from .hashed import SingleCluster as SingleCluster
from .hierarchical import HierarchicalClusters as HierarchicalClusters
from .hyperplanes import HyperplaneClusters as HyperplaneClusters
from .protocol import OwnPartition as OwnPartition
from .protocol import Partition as Partition
