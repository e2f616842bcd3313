-- KEYS: apps. ARGV: name, record as it was read, the new one. Gives whether it was still that.
if call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
