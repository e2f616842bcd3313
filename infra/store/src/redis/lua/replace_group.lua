-- KEYS: group. ARGV: record as it was read, the new one. Gives whether it was still that.
if call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[2])
return 1
