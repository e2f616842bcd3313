-- KEYS: names. ARGV: name. Gives the new generation, or nil.
local ordinal = device_named(KEYS[1], ARGV[1])
if not ordinal then return nil end
local device = device_read(KEYS[1], ordinal)
device.generation = math.min(device.generation + 1, 4294967295)
device_write(KEYS[1], ordinal, device)
device_changed(KEYS[1], ordinal)
return device.generation
