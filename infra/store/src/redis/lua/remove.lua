-- KEYS: names. ARGV: name. Gives the ordinal and the record that is gone, or nothing.
local ordinal = device_named(KEYS[1], ARGV[1])
if not ordinal then return {} end
local device = device_read(KEYS[1], ordinal)
local block, field = slot(KEYS[1], 'd', ordinal)
local record = call('HGET', block, field)
call('HSET', block, field, 'x' .. struct.pack('>Bc0', #ARGV[1], ARGV[1]))
call('HDEL', KEYS[1], ARGV[1])
device_live(KEYS[1], ordinal, device.env, 0)
device_owned(KEYS[1], ordinal, device, false)
device_changed(KEYS[1], ordinal)
local places = slot(KEYS[1], 'p', ordinal)
call('HDEL', places, 'c' .. field, 'h' .. field)
call('UNLINK', beside(KEYS[1], 'i') .. struct.pack('>I4', ordinal), beside(KEYS[1], 'w') .. struct.pack('>I4', ordinal))
return { ordinal, record }
