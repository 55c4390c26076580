from __future__ import annotations

import pytest
import torch

from kernels.packing import pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64, 129])
def test_round_trip(bits: int, n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    unsigned = torch.randint(0, 2**bits, (3, n), generator=generator).to(torch.uint8)
    packed = pack(unsigned, bits)
    assert packed.shape == (3, packed_bytes(n, bits)) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, bits, n, signed=False), unsigned)
    signed = (unsigned.int() - 2 ** (bits - 1)).to(torch.int8)
    assert torch.equal(unpack(pack(signed, bits), bits, n, signed=True), signed)


@pytest.mark.parametrize("bits", range(1, 9))
def test_layout_is_one_little_endian_bit_stream(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (1, 13), generator=torch.Generator().manual_seed(bits)).to(torch.uint8)
    stream = sum(int(code) << (index * bits) for index, code in enumerate(codes[0]))
    assert bytes(pack(codes, bits)[0].tolist()) == stream.to_bytes(packed_bytes(13, bits), "little")


def test_low_nibble_is_the_even_index() -> None:
    assert pack(torch.tensor([[3, -1, 7]], dtype=torch.int8), 4).tolist() == [[0xF3, 0x07]]


def test_input_is_not_changed_and_bad_input_is_named() -> None:
    codes = torch.arange(8, dtype=torch.int8)[None]
    packed = pack(codes, 8)
    packed += 1
    assert codes[0, 0] == 0
    with pytest.raises(ValueError, match=r"bits must be 1\.\.8, got 9"):
        pack(codes, 9)
    with pytest.raises(ValueError, match="int8 or uint8"):
        pack(codes.float(), 4)
    with pytest.raises(ValueError, match=r"packed codes must be uint8, got torch\.int8"):
        unpack(packed.view(torch.int8), 8, 8, signed=False)
    with pytest.raises(ValueError, match="take 4 bytes a row, got 3"):
        unpack(packed[:, :3], 4, 8, signed=True)
