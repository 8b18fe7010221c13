import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict

########################################################################
# Please set up Ray cluster before running this script
# e.g., ray start --head --resources='{"node:192.168.0.1": 1}' on head node
# ray start --address="192.168.0.1:6379" --resources='{"node:192.168.0.2": 1}' on worker
########################################################################
HEAD_NODE_IP = "192.168.0.1"  # Replace with your head node IP
WORKER_NODE_IP = "192.168.0.2"  # Replace with your worker node IP

# Where the tensors are: on an NPU where there is one, with a Ray resource NPU then.
DEVICE = "npu" if hasattr(torch, "npu") and torch.npu.is_available() else "cpu"

# Configure Yuanrong backend
# User-provided config will be merged with TransferQueue's default config.yaml.
# Specified fields override defaults; unspecified fields retain default values.
conf = OmegaConf.create({"backend": {"storage_backend": "Yuanrong"}})
resources = {}
if DEVICE == "npu":
    conf.backend.Yuanrong = {
        "enable_yr_npu_transport": True,
        "worker_args": "--remote_h2d_device_ids 0,1",
    }
    resources = {"NPU": 1}

# Initialize TransferQueue + Yuanrong
# This will deploy Yuanrong workers on all Ray cluster nodes
tq.init(conf)


@ray.remote
class DataActor:
    """Ray actor for put/get data. It is persistent: its tensors stay valid."""

    def __init__(self, config):
        # Each process must call tq.init() to get a client
        tq.init(config)
        if DEVICE == "npu":
            torch.npu.set_device(0)

    def put_data(self):
        """Put data on this node."""
        data = TensorDict(
            {"input": torch.ones((3, 512), device=DEVICE)}, batch_size=[3]
        )
        tq.kv_batch_put(keys=["s0", "s1", "s2"], partition_id="train", fields=data)
        print("[put] Data put completed")

    def get_data(self):
        """Get data on this node."""
        result = tq.kv_batch_get(keys=["s0", "s1", "s2"], partition_id="train")
        print(f"[get] Data get completed: {result['input']}")
        return result


# Create actors on different nodes
head_node = {f"node:{HEAD_NODE_IP}": 0.001, **resources}
worker_node = {f"node:{WORKER_NODE_IP}": 0.001, **resources}
put_actor = DataActor.options(resources=head_node).remote(conf)
get_actor = DataActor.options(resources=worker_node).remote(conf)

# Put data on head node
ray.get(put_actor.put_data.remote())

# Get data on worker node (cross-node transfer)
result = ray.get(get_actor.get_data.remote())
print("output:", result)

# Cleanup
tq.close()
