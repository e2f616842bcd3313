-- KEYS: a value that begins with 8 bytes of version. ARGV: the version that was read, the new value.
-- Gives 1 when it was written, 0 when another was quicker, -1 when there is nothing.
local version = call('GETRANGE', KEYS[1], 0, 7)
if version == '' then return -1 end
if version ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[2])
return 1
