// The kernels for one instruction set: compiled several times, see setup.py.

#include "decode.h"
#include "groups.h"
#include "hash.h"
#include "position_wise.h"

namespace reformer {

extern const Kernels REFORMER_KERNELS;
const Kernels REFORMER_KERNELS = {
    REFORMER_NAME, scratch_floats, forward, backward, delta, round, hash_scratch_floats, hash, decode_scratch_floats, decode,
    layer_norm, layer_norm_backward, add,
};

}  // namespace reformer
