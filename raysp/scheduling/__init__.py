"""Who is measured next: orders of masks, the broker that shares workers among runs, and a simulation of it. Knows nothing of Ray, models, stores and explorers."""

from raysp.scheduling.broker import Broker
from raysp.scheduling.order import BrokerState, Delivery, Expired, Lease, Order, WithdrawnError
from raysp.scheduling.quarantine import QuarantinedMaskError

__all__ = ["Broker", "BrokerState", "Delivery", "Expired", "Lease", "Order", "QuarantinedMaskError", "WithdrawnError"]
