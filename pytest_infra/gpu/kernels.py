"""The two kernels, as OpenCL C and as PTX, which every driver of NVIDIA's translates for its GPU when it is loaded.

``saxpy`` moves memory and computes little; ``burn`` computes and moves little, to see whether copies overlap with it.
"""

from __future__ import annotations

__all__ = ["OPENCL_C", "PTX"]

OPENCL_C = """
__kernel void saxpy(const float a, __global const float *x, __global float *y, const uint n) {
    uint i = get_global_id(0);
    if (i < n) y[i] = fma(a, x[i], y[i]);
}
__kernel void burn(__global float *y, const uint n, const uint rounds) {
    uint i = get_global_id(0);
    if (i < n) {
        float v = y[i];
        for (uint k = 0; k < rounds; k++) v = fma(v, 0.5f, 1.0f);
        y[i] = v;
    }
}
"""

_HEAD = """.version 6.4
.target sm_60
.address_size 64
"""

_INDEX = """
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    ld.param.u32 %r5, [n];
    setp.ge.u32 %p1, %r4, %r5;
    @%p1 bra DONE;
    mul.wide.u32 %d1, %r4, 4;
    ld.param.u64 %d2, [y];
    cvta.to.global.u64 %d3, %d2;
    add.u64 %d4, %d3, %d1;
    ld.global.f32 %f1, [%d4];
"""

_REGISTERS = """
    .reg .pred %p<3>;
    .reg .f32 %f<5>;
    .reg .b32 %r<9>;
    .reg .b64 %d<9>;
"""

PTX = f"""{_HEAD}
.visible .entry saxpy(.param .f32 a, .param .u64 x, .param .u64 y, .param .u32 n)
{{{_REGISTERS}{_INDEX}
    ld.param.f32 %f2, [a];
    ld.param.u64 %d5, [x];
    cvta.to.global.u64 %d6, %d5;
    add.u64 %d7, %d6, %d1;
    ld.global.f32 %f3, [%d7];
    fma.rn.f32 %f4, %f2, %f3, %f1;
    st.global.f32 [%d4], %f4;
DONE:
    ret;
}}

.visible .entry burn(.param .u64 y, .param .u32 n, .param .u32 rounds)
{{{_REGISTERS}{_INDEX}
    ld.param.u32 %r6, [rounds];
    mov.u32 %r7, 0;
AGAIN:
    setp.ge.u32 %p2, %r7, %r6;
    @%p2 bra STORE;
    fma.rn.f32 %f1, %f1, 0f3F000000, 0f3F800000;
    add.u32 %r7, %r7, 1;
    bra AGAIN;
STORE:
    st.global.f32 [%d4], %f1;
DONE:
    ret;
}}
"""
"""PTX ISA, NVIDIA; 0f3F000000 is 0.5 and 0f3F800000 is 1."""
