-- Numbers: Lua has doubles, which hold every whole number below 2^53, and so every seq until 2039. They are written
-- with all their digits, or as 8 bytes.
local call = redis.call

-- Devices that share a hash.
local DEVICES_A_BLOCK = 32

local function digits(number) return string.format('%d', number) end
local function bytes8(number) return struct.pack('>I8', number) end
local function number8(bytes, at) return (struct.unpack('>I8', bytes, at)) end

-- The key of a kind under the tag of `key`.
local function beside(key, kind)
  local tag = string.find(key, '}', 1, true)
  return string.sub(key, 1, tag) .. kind
end

